"""What rays see where nothing stops them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.fields.implicit import Sizes
from utils.registry import ConfigError
from utils.types import Rays


class Background(nn.Module):
    """One colour behind everything, or the backdrop of each ray.

    Args:
        color: one number or one per channel; None shows the backdrop.
        sizes: of which the number of channels counts.
        where: full key of the colour, for errors.
    """

    color: Tensor | None

    def __init__(self, color: list[float] | None, sizes: Sizes, where: str):
        super().__init__()
        n = sizes.n_channels
        if color is None and n != 3:
            raise ConfigError(
                f"model.render_features_dimensions is {n}, but the backdrop of rays has 3 channels; give {where}"
            )
        if color is not None and len(color) not in (1, n):
            raise ConfigError(f"{where} has {len(color)} numbers; expected 1 or {n}")
        self.n_channels = n
        self.register_buffer("color", None if color is None else torch.tensor(color), persistent=False)

    def forward(self, rays: Rays) -> Float[Tensor, "R C"]:
        return rays.backdrop if self.color is None else self.color.expand(len(rays), self.n_channels)
