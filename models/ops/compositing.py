"""Opacities of packed intervals, and what is seen along rays through them."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.ops import native, reference
from models.ops.autograd import first_order_only
from models.ops.dispatch import Backend, check_shapes, uses_native


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
    check_shapes("composite", values=(values, (len(values), len(alpha))))
    offsets = _checked_offsets(offsets, len(alpha))
    if not uses_native("composite", backend, [alpha, values]):
        return reference.composite(alpha, values, offsets)
    return _Composite.apply(alpha, values, offsets)


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
    check_shapes("distortion", t_mid=(t_mid, (len(weights),)), width=(width, (len(weights),)))
    offsets = _checked_offsets(offsets, len(weights))
    if not uses_native("distortion", backend, [weights, t_mid, width]):
        return reference.distortion(weights, t_mid, width, offsets)
    return _Distortion.apply(weights, t_mid.detach().contiguous(), width.detach().contiguous(), offsets)


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
    check_shapes("neus_alpha", slope=(slope, (len(sdf),)), width=(width, (len(sdf),)), sharpness=(sharpness, ()))
    obstacle = "the kernel gives no gradient by width" if torch.is_grad_enabled() and width.requires_grad else ""
    if not uses_native("neus_alpha", backend, [sdf, slope, width, sharpness], obstacle):
        return reference.neus_alpha(sdf, slope, width, sharpness)
    return _NeusAlpha.apply(sdf, slope, width, sharpness)


def _checked_offsets(offsets: Tensor, n_samples: int) -> Tensor:
    """Offsets as the kernels want them; ValueError unless they rise from 0 to the number of samples."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != n_samples or bool((offsets.diff() < 0).any()):
        raise ValueError(f"packed samples: offsets must rise from 0 to {n_samples}, the number of samples")
    return offsets.to(torch.int64).contiguous()


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        alpha, values, n_rays = alpha.contiguous(), values.contiguous(), len(offsets) - 1
        weights, sums = torch.empty_like(alpha), values.new_empty(len(values), n_rays)
        native.call("composite", n_rays, len(alpha), len(values), offsets, alpha, values, weights, sums)
        ctx.save_for_backward(alpha, values, offsets, weights)
        return weights, sums

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_weights: Tensor, d_sums: Tensor) -> tuple[Tensor | None, ...]:
        alpha, values, offsets, weights = ctx.saved_tensors
        d_alpha = d_weights.clone(memory_format=torch.contiguous_format)
        d_values = torch.empty_like(values) if ctx.needs_input_grad[1] else None
        scratch = torch.empty(len(alpha), dtype=torch.float64)
        sizes = len(offsets) - 1, len(alpha), len(values)
        arrays = offsets, alpha, values, weights, d_sums.contiguous(), d_alpha, d_values, scratch
        native.call("composite_backward", *sizes, *arrays)
        return d_alpha, d_values, None


class _Distortion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, t_mid: Tensor, width: Tensor, offsets: Tensor) -> Tensor:
        weights, n_rays = weights.contiguous(), len(offsets) - 1
        spread = weights.new_empty(n_rays)
        native.call("distortion", n_rays, offsets, weights, t_mid, width, spread)
        ctx.save_for_backward(weights, t_mid, width, offsets)
        return spread

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_spread: Tensor) -> tuple[Tensor | None, ...]:
        weights, t_mid, width, offsets = ctx.saved_tensors
        d_weights = torch.empty_like(weights)
        arrays = offsets, weights, t_mid, width, d_spread.contiguous(), d_weights
        native.call("distortion_backward", len(offsets) - 1, *arrays)
        return d_weights, None, None, None


class _NeusAlpha(torch.autograd.Function):
    SAMPLES_PER_SUM = 4096  # `POINTS` of cpu.cpp

    @staticmethod
    def forward(ctx: Any, sdf: Tensor, slope: Tensor, width: Tensor, sharpness: Tensor) -> Tensor:
        sdf, slope, width = sdf.contiguous(), slope.contiguous(), width.contiguous()
        alpha = torch.empty_like(sdf)
        native.call("neus_alpha", len(sdf), sdf, slope, width, _clipped(sharpness), alpha)
        ctx.save_for_backward(sdf, slope, width, sharpness)
        return alpha

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_alpha: Tensor) -> tuple[Tensor | None, ...]:
        sdf, slope, width, sharpness = ctx.saved_tensors
        d_sdf, d_slope = torch.empty_like(sdf), torch.empty_like(slope)
        sums = sdf.new_empty(-(-len(sdf) // _NeusAlpha.SAMPLES_PER_SUM))
        arrays = d_alpha.contiguous(), d_sdf, d_slope, sums
        native.call("neus_alpha_backward", len(sdf), sdf, slope, width, _clipped(sharpness), *arrays)
        is_free = _clipped(sharpness) == sharpness.item()
        return d_sdf, d_slope, None, sums.sum() if is_free else torch.zeros_like(sharpness)


def _clipped(sharpness: Tensor) -> float:
    return sharpness.clamp(1e-6, 1e6).item()
