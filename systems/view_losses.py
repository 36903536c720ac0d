"""The losses of the Implicitron family that are not among `systems.loss_functions`, by the family's names.

Numbers such as [D24] are those of the list of differences in docs/implicitron.md.

The rays of a step count as those of one image, as they are with `model.batch_image_sampling=false`.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from systems.loss_functions import color_error, loss, mean_over_hits
from utils.types import Rendered, Target


@loss("rgb_huber")
def rgb_huber(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Robust error of colours: a root that is quadratic below 0.03 and linear above."""
    scale = 0.03
    squared = color_error(rendered, target).square().mean(-1, keepdim=True)
    return mean_over_hits(scale * ((squared / scale**2 + 1 + 1e-4).sqrt() - 1), rendered)


@loss("rgb_psnr")
def rgb_psnr(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB of all rays; it grows as colours improve, so its weight is to be negative."""
    return _decibels(color_error(rendered, target).square().mean())


@loss("rgb_psnr_fg", "mask")
def rgb_psnr_fg(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB of the object alone; its weight is to be negative, too."""
    assert target.mask is not None
    squared = target.mask * color_error(rendered, target).square().mean(-1)
    return _decibels(squared.sum() / target.mask.sum().clamp_min(1e-5))


@loss("rgb_mse_fg", "mask")
def rgb_mse_fg(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean squared error of the object's colours."""
    assert target.mask is not None
    squared = target.mask * color_error(rendered, target).square().mean(-1)
    return squared.sum() / target.mask.sum().clamp_min(1)


@loss("mask_beta_prior")
def mask_beta_prior(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Prior that every ray hits or misses: mean of ln(p + 0.1) + ln(1.1 - p), 0 at both ends (Lombardi et al. 2019)."""
    p = rendered.opacity
    return (torch.log(p + 0.1) + torch.log(1.1 - p)).mean() - math.log(0.1 * 1.1)


@loss("mask_neg_iou", "mask")
def mask_neg_iou(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """1 minus the intersection of opacity and mask over their union."""
    assert target.mask is not None
    return 1 - mask_iou(rendered.opacity, target.mask)


@loss("mask_bce", "mask")
def mask_bce(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Binary cross-entropy of opacity and mask, in which object and surroundings have the same say."""
    assert target.mask is not None
    is_object = (target.mask > 0.5).float()
    is_beyond = 1 - is_object
    weight = is_object / is_object.sum().clamp_min(1) + is_beyond / is_beyond.sum().clamp_min(1)
    # Probabilities are clamped; the published code clamps logits under mixed precision, which destroys them [D24].
    entropy = F.binary_cross_entropy(rendered.opacity.clamp(0.01, 0.99), target.mask, reduction="none")
    return (weight * entropy).sum() / weight.sum().clamp_min(1)


@loss("depth_abs", "true depth")
def depth_abs(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean absolute error of depth where it is known, after the scale that fits best; world units."""
    assert target.depth is not None
    return scaled_depth_error(rendered.depth, target.depth, target.depth > 0)


@loss("depth_abs_fg", "true depth", "mask")
def depth_abs_fg(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean absolute error of depth on the object, after the scale that fits best; world units."""
    assert target.depth is not None and target.mask is not None
    return scaled_depth_error(rendered.depth, target.depth, (target.depth > 0) & (target.mask > 0.5))


@loss("depth_neg_penalty")
def depth_neg_penalty(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean square of depths behind the camera."""
    return rendered.depth.clamp_max(0).square().mean()


@loss("density_tv", "density_grid")
def density_tv(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Total variation of the logarithm of a density grid (Lombardi et al. 2019, Neural Volumes, sec. 5)."""
    assert rendered.density_grid is not None
    logarithm = torch.log(rendered.density_grid + 1e-5)
    n = [side - 1 for side in logarithm.shape[1:]]
    steps = [logarithm.diff(dim=axis)[:, : n[0], : n[1], : n[2]] for axis in (1, 2, 3)]
    return (torch.stack(steps).square().sum(0) + 1e-5).sqrt().mean()


@loss("autodecoder_norm", "code_norm")
def autodecoder_norm(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean square of the learnt codes of scenes. (The published models never produce it [D26].)"""
    assert rendered.code_norm is not None
    return rendered.code_norm


def mask_iou(opacity: Float[Tensor, "R"], mask: Float[Tensor, "R"]) -> Float[Tensor, ""]:
    """Intersection over union of two soft masks."""
    both = opacity * mask
    return both.sum() / ((opacity + mask - both).sum() + 1e-4)


def scaled_depth_error(
    depth: Float[Tensor, "R"], truth: Float[Tensor, "R"], is_known: Bool[Tensor, "R"]
) -> Float[Tensor, ""]:
    """Mean absolute error where the truth is known, after the factor with the least squared error."""
    known = is_known.to(depth)
    scale = (depth * truth * known).mean() / (depth.square() * known).mean().clamp_min(1e-4)
    return ((truth - scale * depth).abs() * known).sum() / known.sum().clamp_min(1e-4)


def _decibels(squared_error: Float[Tensor, ""]) -> Float[Tensor, ""]:
    return -10 * torch.log10(squared_error.clamp_min(1e-10))
