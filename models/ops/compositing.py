"""Opacities of packed intervals, and what is seen along rays through them."""

from jaxtyping import Float, Int
from torch import Tensor

from models.ops import reference
from models.ops.dispatch import Backend, uses_native


def composite(
    alpha: Float[Tensor, "N"],
    values: Float[Tensor, "C N"],
    offsets: Int[Tensor, "R_plus_1"],
    backend: Backend = "auto",
) -> tuple[Float[Tensor, "N"], Float[Tensor, "C R"]]:
    """Front-to-back compositing: w_i = alpha_i prod_(j<i) (1 - alpha_j), and each ray's sums of w * values.

    A row of ones gives opacity, a row of distances gives depth.

    Args:
        alpha: [N] opacities in [0, 1], near to far within a ray.
        values: [C, N] what to sum.
        offsets: [R + 1] samples of ray `r` are `offsets[r] ... offsets[r + 1] - 1`; the last entry is N.

    Returns:
        weights [N] and sums [C, R] (0 for empty rays). Differentiable once, by alpha (exactly, also where it is 1)
        and values.
    """
    uses_native("composite", backend, [alpha, values])
    return reference.composite(alpha, values, offsets)


def distortion(
    weights: Float[Tensor, "N"],
    t_mid: Float[Tensor, "N"],
    width: Float[Tensor, "N"],
    offsets: Int[Tensor, "R_plus_1"],
    backend: Backend = "auto",
) -> Float[Tensor, "R"]:
    """How far the weights of each ray are spread out (Barron et al. 2022, eq. 15, for weights constant per interval).

    1/3 sum_i width_i w_i^2 + 2 sum_i w_i (t_i sum_(j<i) w_j - sum_(j<i) w_j t_j).

    Args:
        weights: [N] shares of the ray.
        t_mid, width: [N] middle and length of the intervals, in the unit the result shall have; no gradient.
        offsets: [R + 1] see `composite`.

    Returns:
        [R], 0 for empty rays. Differentiable once, by weights.
    """
    uses_native("distortion", backend, [weights, t_mid, width])
    return reference.distortion(weights, t_mid, width, offsets)


def neus_alpha(
    sdf: Float[Tensor, "N"],
    slope: Float[Tensor, "N"],
    width: Float[Tensor, "N"],
    sharpness: Float[Tensor, ""],
    backend: Backend = "auto",
) -> Float[Tensor, "N"]:
    """Opacity of intervals whose midpoints have signed distance `sdf` (Wang et al. 2021, sec. 3.1).

    Linearises the distance along the ray, so it is exact where the surface is flat at the scale of `width`:
    alpha = clip((S(before) - S(after) + 1e-5) / (S(before) + 1e-5), 0, 1), with S the sigmoid of
    `sharpness * (sdf -+ slope * width / 2)`. Deep inside, where both are far below 1e-5, alpha tends to 1.

    Args:
        sdf: [N] at midpoints, scene units, negative inside.
        slope: [N] derivative of the distance along the ray, in [-1, 0] in front of a surface.
        width: [N] interval lengths, scene units; no gradient in the kernel.
        sharpness: scalar, inverse scene units, clipped to [1e-6, 1e6].

    Returns:
        [N] in [0, 1]. Differentiable once, by sdf, slope and sharpness.
    """
    uses_native("neus_alpha", backend, [sdf, slope, width, sharpness])
    return reference.neus_alpha(sdf, slope, width, sharpness)
