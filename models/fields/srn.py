"""`srn`: a latent feature of space, and the pixel that it shows (Sitzmann et al. 2019, Scene Representation
Networks)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models import implicit_functions
from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import LatentFunction, Sizes
from utils.config import check_least
from utils.types import Context, RayPoints, Rays


@dataclass
class PixelConfig:
    """Options of the network that turns a feature into a pixel."""

    n_harmonic_functions: int = 4
    """Frequencies of directions; 0 for the direction itself."""
    n_hidden_units: int = 256
    """Width of the layers."""
    n_hidden_units_color: int = 128
    """Width of the hidden layer of the colour."""
    n_layers: int = 2
    """Layers between the first and the last."""

    def __post_init__(self) -> None:
        check_least(self, n_harmonic_functions=0, n_hidden_units=1, n_hidden_units_color=1, n_layers=0)


@dataclass
class RaymarchConfig:
    """Options of the network that turns a position into a feature."""

    n_harmonic_functions: int = 3
    """Frequencies of positions; 0 for the position itself."""
    n_hidden_units: int = 256
    """Width of the layers."""
    n_layers: int = 2
    """Layers between the first and the last."""
    out_features: int = 256
    """Length of the feature."""

    def __post_init__(self) -> None:
        check_least(self, n_harmonic_functions=0, n_hidden_units=1, n_layers=0, out_features=1)


@implicit_functions.register("srn")
class SRN(LatentFunction):
    """Harmonics of the position, beside them the code of the scene, go through one network to a feature of space;
    where a ray ends, another network turns the feature into opacity and colour.

    The input of the second network is as long as the feature, and its colour has as many channels as the model renders
    (the published configuration leaves these to be kept equal by hand).
    """

    @dataclass
    class Config:
        raymarch_function: RaymarchConfig = field(default_factory=RaymarchConfig)
        """From position to feature."""
        pixel_generator: PixelConfig = field(default_factory=PixelConfig)
        """From feature and direction to opacity and colour."""

    def __init__(self, config: "SRN.Config", sizes: Sizes):
        super().__init__()
        march = config.raymarch_function
        self.n_features = march.out_features
        self.position = HarmonicEmbedding(march.n_harmonic_functions)
        widths = [self.position.n_outputs + sizes.n_code, *[march.n_hidden_units] * (march.n_layers + 1)]
        self.raymarch_function = perceptron([*widths, march.out_features])
        self.pixel_generator = PixelGenerator(config.pixel_generator, march.out_features, sizes.n_channels)

    def forward(self, rays: Rays, context: Context) -> Callable[[RayPoints], Float[Tensor, "R P F"]]:
        first = self.raymarch_function[0]
        assert isinstance(first, nn.Sequential)
        entry, activation, rest = first[0], first[1:], self.raymarch_function[1:]
        assert isinstance(entry, nn.Linear)
        n, of_ray = self.position.n_outputs, entry.bias
        if context.code is not None:
            of_ray = F.linear(context.code, entry.weight[:, n:], entry.bias)[:, None]  # [R, 1, H]

        def feature(points: RayPoints) -> Float[Tensor, "R P F"]:
            of_point = F.linear(self.position(points.positions(rays)), entry.weight[:, :n])
            return rest(activation(of_point + of_ray))

        return feature

    def pixel(self, rays: Rays, feature: Float[Tensor, "R F"]) -> tuple[Float[Tensor, "R"], Float[Tensor, "R C"]]:
        return self.pixel_generator(rays, feature)


class PixelGenerator(nn.Module):
    """Opacity and colour of a feature, the colour seen from the direction of the ray; no activation bounds them."""

    def __init__(self, config: PixelConfig, n_inputs: int, n_channels: int):
        super().__init__()
        width, n_color = config.n_hidden_units, config.n_hidden_units_color
        self.direction = HarmonicEmbedding(config.n_harmonic_functions)
        self.trunk = perceptron([n_inputs, *[width] * (config.n_layers + 2)])
        self.density = linear(width, 1)
        self.color_hidden = layer(width + self.direction.n_outputs, n_color)
        self.color = linear(n_color, n_channels)

    def forward(self, rays: Rays, feature: Float[Tensor, "R F"]) -> tuple[Float[Tensor, "R"], Float[Tensor, "R C"]]:
        hidden = self.trunk(feature)
        color = self.color(self.color_hidden(torch.cat([hidden, self.direction(rays.directions)], dim=-1)))
        return self.density(hidden)[:, 0], color


def perceptron(widths: list[int]) -> nn.Sequential:
    """Layers from each width to the next, all of them activated."""
    return nn.Sequential(*[layer(n_inputs, n_outputs) for n_inputs, n_outputs in pairwise(widths)])


def layer(n_inputs: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(linear(n_inputs, n_outputs), nn.LayerNorm(n_outputs), nn.ReLU())


def linear(n_inputs: int, n_outputs: int) -> nn.Linear:
    """A layer whose outputs vary as much as its inputs, where these come from a ReLU (He et al. 2015)."""
    made = nn.Linear(n_inputs, n_outputs)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu")
    return made
