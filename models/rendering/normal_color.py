"""Colour of a surface from where it is, how it is turned and whence it is seen (Yariv et al. 2020, IDR, eq. 5)."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from models.fields.activations import get_activation
from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import Sizes
from utils.config import check_least
from utils.registry import ConfigError


class NormalColor(nn.Module):
    """A network of position, direction of view, normal and the field's feature. Built as `NormalColor(config, sizes)`.

    The published network ends in a tanh, though photographs have colours in [0, 1] [D11]; this one ends in a sigmoid,
    unless `color_activation` says otherwise.
    """

    @dataclass
    class Config:
        mode: Literal["idr", "no_view_dir", "no_normal"] = "idr"
        """What is seen: everything, all but the direction of view, or all but the normal."""
        dims: list[int] = field(default_factory=lambda: 4 * [512])
        """Widths of the hidden layers."""
        weight_norm: bool = True
        """Whether weights are stored as direction and length (Salimans & Kingma 2016)."""
        n_harmonic_functions_dir: int = 0
        """Frequencies of directions of view."""
        color_activation: str = "sigmoid"
        """Activation of the colour; the published one is tanh."""

        def __post_init__(self) -> None:
            check_least(self, dims=1, n_harmonic_functions_dir=0)
            if self.mode == "no_view_dir" and self.n_harmonic_functions_dir > 0:
                raise ConfigError("n_harmonic_functions_dir has no effect with mode=no_view_dir; remove it")

    def __init__(self, config: "NormalColor.Config", sizes: Sizes):
        super().__init__()
        self.mode = config.mode
        self.direction = HarmonicEmbedding(config.n_harmonic_functions_dir)
        n_view = 0 if config.mode == "no_view_dir" else self.direction.n_outputs
        n_normal = 0 if config.mode == "no_normal" else 3
        widths = [3 + n_view + n_normal + sizes.n_channels, *config.dims, sizes.n_channels]
        layers = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths)]
        self.layers = nn.ModuleList(weight_norm(layer) if config.weight_norm else layer for layer in layers)
        self.color_activation = get_activation(config.color_activation)

    def forward(
        self,
        points: Float[Tensor, "N 3"],
        normals: Float[Tensor, "N 3"],
        directions: Float[Tensor, "N 3"],
        feature: Float[Tensor, "N F"],
    ) -> Float[Tensor, "N C"]:
        """Colours.

        Args:
            points: world positions on the surface.
            normals: gradients of the distance there, as they are: of length 1 only where the field is a distance.
            directions: unit, from the camera to the point.
            feature: of the field there.
        """
        seen = [points]
        if self.mode != "no_view_dir":
            seen.append(self.direction(directions))
        if self.mode != "no_normal":
            seen.append(normals)
        hidden = torch.cat([*seen, feature], dim=-1)
        *others, last = self.layers
        for layer in others:
            hidden = torch.relu(layer(hidden))
        return self.color_activation(last(hidden))
