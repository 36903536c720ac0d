"""The rays of a training step, and what lies behind the scene."""

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.pixels import draw_pixels
from datasets.views import Views
from models.base import ModelConfig
from utils.types import RayBatch


def draw_rays(views: Views, config: ModelConfig, n_rays: int) -> RayBatch:
    """Rays through random pixels with what was photographed there."""
    view, pixel = draw_pixels(views, n_rays, not config.batch_image_sampling, config.pixel_sampling)
    name, n, device = config.background_color, len(view), views.offsets.device
    if name == "random":
        color = torch.rand(1, 3, device=device).expand(n, 3)
    elif name == "random-per-ray":
        color = torch.rand(n, 3, device=device)
    else:
        color = backdrop(config, device).expand(n, 3)
    return views.draw(view, pixel, color)


def backdrop(config: ModelConfig, device: torch.device) -> Float[Tensor, "3"]:
    """Colour behind everything in evaluation."""
    return torch.full((3,), 0.0 if config.background_color == "black" else 1.0, device=device)
