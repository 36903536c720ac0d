"""How well the object is seen in a view, where its mask or its depth is known, as the Implicitron family scores it."""

import torch

from systems.view_losses import mask_iou, scaled_depth_error
from utils.types import Rendered, Target

BORDER = 5
"""Pixels along the border of an image whose depth is not compared, because published depth maps are wrong there."""


@torch.no_grad()
def object_scores(rendered: Rendered, target: Target, width: int, height: int) -> dict[str, float]:
    """Scores of a whole view, whose rays come row by row.

    Returns:
        `psnr_fg`, in dB, of the pixels that the object covers by half or more, and `mask_iou` of these pixels and the
        opacity, where there is a mask; `depth_abs_fg`, mean absolute error of depth on the object after the factor that
        fits best, world units, where depth is known.
    """
    scores = {}
    is_object = torch.ones_like(rendered.opacity) if target.mask is None else (target.mask >= 0.5).float()
    if target.mask is not None:
        squared = (rendered.color.clamp(0, 1) - target.color).square().mean(-1)
        mean = (is_object * squared).sum() / is_object.sum().clamp_min(1)
        scores["psnr_fg"] = -10 * torch.log10(mean.clamp_min(1e-10)).item()
        scores["mask_iou"] = mask_iou(rendered.opacity, is_object).item()
    if target.depth is not None:
        is_compared = (target.depth > 0) & (is_object > 0) & _is_inside(width, height).to(is_object.device)
        scores["depth_abs_fg"] = scaled_depth_error(rendered.depth, target.depth, is_compared).item()
    return scores


def _is_inside(width: int, height: int) -> torch.Tensor:
    """[R] whether a pixel is compared; all of an image that is nothing but border."""
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[BORDER : height - BORDER, BORDER : width - BORDER] = True
    return inside.flatten() | (not inside.any())
