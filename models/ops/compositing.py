"""Opacities of packed intervals, and what is seen along rays through them."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.ops import nerfacc, reference
from models.ops.autograd import first_order_only
from models.ops.dispatch import Backend, call, check_shapes, on_gpu, uses_native

SAMPLES_PER_SUM = 4096  # `POINTS` of cpu.cpp; a GPU kernel leaves all sums to torch


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
        offsets: [R + 1] samples of ray `r` are `offsets[r] ... offsets[r + 1] - 1`; the last entry is N. On a GPU they
            are not looked at, which would wait for it, but clamped to the samples that there are; there, what follows
            the last entry is padding, which has no weight and gets no gradient.

    Returns:
        weights [N] and sums [C, R] (0 for empty rays). Differentiable once, by alpha (exactly, also where it is 1)
        and values, and through them by positions.

    Raises:
        ValueError: shapes do not fit, or offsets on a CPU do not rise from 0 to N.
    """
    check_shapes("composite", values=(values, (len(values), len(alpha))))
    offsets = _checked_offsets(offsets, alpha)
    if backend == "nerfacc":
        return nerfacc.composite(alpha, values, offsets)
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
        t_mid, width: [N] middle and length of the intervals, in the unit the result shall have.
        offsets: [R + 1] see `composite`.

    Returns:
        [R], 0 for empty rays. Differentiable once, by weights. Intervals are constants: the derivative by where they
        lie does not exist here, and asking for it is an error.

    Raises:
        ValueError: shapes or offsets do not fit.
        RuntimeError: t_mid or width require a gradient.
    """
    check_shapes("distortion", t_mid=(t_mid, (len(weights),)), width=(width, (len(weights),)))
    if torch.is_grad_enabled() and (t_mid.requires_grad or width.requires_grad):
        raise RuntimeError("distortion gives no gradient by t_mid and width; detach them")
    offsets = _checked_offsets(offsets, weights)
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
        width: [N] interval lengths, scene units.
        sharpness: scalar, inverse scene units, clipped to [1e-6, 1e6].

    Returns:
        [N] in [0, 1]. Differentiable once, by sdf, slope and sharpness, and through them by positions; by width in the
        reference alone: the kernels refuse, and "auto" turns to the reference.

    nerfacc takes opacities and makes none, so where it is named this runs as under "auto".
    """
    if backend == "nerfacc":
        backend = "auto"
    check_shapes("neus_alpha", slope=(slope, (len(sdf),)), width=(width, (len(sdf),)), sharpness=(sharpness, ()))
    obstacle = "the kernel gives no gradient by width" if torch.is_grad_enabled() and width.requires_grad else ""
    if not uses_native("neus_alpha", backend, [sdf, slope, width, sharpness], obstacle):
        return reference.neus_alpha(sdf, slope, width, sharpness)
    return _NeusAlpha.apply(sdf, slope, width, sharpness)


def _checked_offsets(offsets: Tensor, samples: Tensor) -> Tensor:
    """Offsets as the kernels want them; ValueError unless they rise from 0 to the number of samples.

    On a GPU nothing is looked at: wrong offsets give wrong numbers, but no kernel leaves its arrays.
    """
    n_samples = len(samples)
    if on_gpu(samples):
        return offsets.to(samples.device, torch.int64).clamp(0, n_samples).contiguous()
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != n_samples or bool((offsets.diff() < 0).any()):
        raise ValueError(f"packed samples: offsets must rise from 0 to {n_samples}, the number of samples")
    return offsets.to(torch.int64).contiguous()


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alpha: Tensor, values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        alpha, values, n_rays = alpha.contiguous(), values.contiguous(), len(offsets) - 1
        weights, sums = _unwritten(alpha), values.new_empty(len(values), n_rays)
        call("composite", n_rays, len(alpha), len(values), offsets, alpha, values, weights, sums)
        ctx.save_for_backward(alpha, values, offsets, weights)
        return weights, sums

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_weights: Tensor, d_sums: Tensor) -> tuple[Tensor | None, ...]:
        alpha, values, offsets, weights = ctx.saved_tensors
        d_alpha = _unwritten(alpha)
        d_values = _unwritten(values) if ctx.needs_input_grad[1] else None
        scratch = alpha.new_empty(len(alpha), dtype=torch.float64)
        sizes = len(offsets) - 1, len(alpha), len(values)
        upstream = d_weights.contiguous(), d_sums.contiguous()
        call("composite_backward", *sizes, offsets, alpha, values, weights, *upstream, d_alpha, d_values, scratch)
        return d_alpha, d_values, None


class _Distortion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, t_mid: Tensor, width: Tensor, offsets: Tensor) -> Tensor:
        weights, n_rays = weights.contiguous(), len(offsets) - 1
        spread = weights.new_empty(n_rays)
        call("distortion", n_rays, offsets, weights, t_mid, width, spread)
        ctx.save_for_backward(weights, t_mid, width, offsets)
        return spread

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_spread: Tensor) -> tuple[Tensor | None, ...]:
        weights, t_mid, width, offsets = ctx.saved_tensors
        d_weights = _unwritten(weights)
        arrays = offsets, weights, t_mid, width, d_spread.contiguous(), d_weights
        call("distortion_backward", len(offsets) - 1, *arrays)
        return d_weights, None, None, None


class _NeusAlpha(torch.autograd.Function):
    """The sharpness is a number on a CPU and stays on the device on a GPU, so that nobody waits for it."""

    @staticmethod
    def forward(ctx: Any, sdf: Tensor, slope: Tensor, width: Tensor, sharpness: Tensor) -> Tensor:
        sdf, slope, width = sdf.contiguous(), slope.contiguous(), width.contiguous()
        alpha = torch.empty_like(sdf)
        call("neus_alpha", len(sdf), sdf, slope, width, _argument(_clipped(sharpness)), alpha)
        ctx.save_for_backward(sdf, slope, width, sharpness)
        return alpha

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_alpha: Tensor) -> tuple[Tensor | None, ...]:
        sdf, slope, width, sharpness = ctx.saved_tensors
        d_sdf, d_slope = torch.empty_like(sdf), torch.empty_like(slope)
        clipped, samples_per_sum = _clipped(sharpness), 1 if on_gpu(sdf) else SAMPLES_PER_SUM
        sums = sdf.new_empty(-(-len(sdf) // samples_per_sum))
        arrays = d_alpha.contiguous(), d_sdf, d_slope, sums
        call("neus_alpha_backward", len(sdf), sdf, slope, width, _argument(clipped), *arrays)
        return d_sdf, d_slope, None, torch.where(clipped == sharpness, sums.sum(), 0.0)


def _unwritten(like: Tensor) -> Tensor:
    """Memory for one number per sample that a kernel writes; it leaves out padding, which only a GPU may have."""
    return torch.zeros_like(like) if on_gpu(like) else torch.empty_like(like)


def _clipped(sharpness: Tensor) -> Tensor:
    return sharpness.clamp(1e-6, 1e6)


def _argument(sharpness: Tensor) -> Tensor | float:
    return sharpness if on_gpu(sharpness) else sharpness.item()
