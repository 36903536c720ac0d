"""What the few rays of a training step saw, as a picture of their photograph.

Every ray is a disc around its pixel that fades outwards; where discs overlap, they are composited in the order of the
rays, at most five in a pixel (`output_rasterized_mc` of the Implicitron family).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models import ops
from systems.panels import Picture, color_picture, opacity_picture, panel
from utils.types import RayBatch, Rendered

MOST_DISCS = 5


def preview(rendered: Rendered, batch: RayBatch, width: int, height: int) -> Picture:
    """The photograph, the render and its opacity, side by side, white where no ray comes near.

    Args:
        rendered: of rays of one view.
        batch: these rays.
        width, height: of the view, pixels.
    """
    pixel = batch.rays.pixel
    seen = [batch.target.color, rendered.color.detach()[:, :3], rendered.opacity.detach()[:, None]]
    color, coverage = splat(pixel, torch.cat(seen, dim=-1), width, height)
    photograph, render, opacity = (color + 1 - coverage[..., None]).split([3, seen[1].shape[1], 1], dim=-1)
    return panel([color_picture(photograph), color_picture(render), opacity_picture(opacity[..., 0])])


def splat(
    pixel: Int[Tensor, "R 2"], values: Float[Tensor, "R C"], width: int, height: int
) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W"]]:
    """Discs of radius r = min(W, H) / sqrt(R) pixels, of opacity 1 - d^2 / r^2 at distance d from the middle.

    Args:
        pixel: [R, 2] columns and rows.
        values: [R, C] what to show there.
        width, height: of the picture.

    Returns:
        Values times coverage, and coverage in [0, 1].
    """
    radius = max(min(width, height) / math.sqrt(max(len(pixel), 1)), 1.0)
    reach = torch.arange(-math.ceil(radius), math.ceil(radius) + 1, device=pixel.device)
    offset = torch.cartesian_prod(reach, reach)
    alpha = 1 - offset.square().sum(-1) / radius**2
    offset, alpha = offset[alpha > 0], alpha[alpha > 0]

    place = (pixel[:, None] + offset).flatten(0, 1)
    ray = torch.arange(len(pixel), device=pixel.device).repeat_interleave(len(offset))
    inside = ((place >= 0) & (place < torch.tensor([width, height], device=pixel.device))).all(-1)
    place, ray, alpha = place[inside], ray[inside], alpha.repeat(len(pixel))[inside]

    # Pixel by pixel, the rays of each in their order.
    cell, order = (place[:, 1] * width + place[:, 0]).sort(stable=True)
    first = torch.searchsorted(cell, cell)
    kept = torch.arange(len(cell), device=cell.device) - first < MOST_DISCS
    cell, order = cell[kept], order[kept]
    ends = torch.searchsorted(cell, torch.arange(width * height + 1, device=cell.device))
    shown = torch.nn.functional.pad(values, (0, 1), value=1.0)[ray[order]].T.contiguous().float()
    _, sums = ops.composite(alpha[order].float(), shown, ends, backend="reference")
    picture = sums.T.view(height, width, -1)
    return picture[..., :-1], picture[..., -1]
