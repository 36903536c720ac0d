"""`srn-hypernet`: a scene representation network whose weights another network predicts from the code of the scene
(Sitzmann et al. 2019, Scene Representation Networks, sec. 3.3; Ha et al. 2017, HyperNetworks)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from models import implicit_functions
from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import LatentFunction, Sizes
from models.fields.srn import PixelConfig, PixelGenerator, RaymarchConfig, linear, perceptron
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays

Network = tuple[tuple[Float[Tensor, "_ _"], Float[Tensor, "_"]], ...]
"""Weights, outputs before inputs, and biases of a network, layer by layer."""


@dataclass
class HypernetConfig(RaymarchConfig):
    """Options of the predicted network, and of those that predict its layers."""

    n_hidden_units_hypernet: int = 256
    """Width of the networks that predict."""
    n_layers_hypernet: int = 1
    """Their layers between the first and the last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, n_hidden_units_hypernet=1, n_layers_hypernet=0)


@implicit_functions.register("srn-hypernet")
class SRNHyperNet(LatentFunction):
    """Every scene has a network of its own from position to feature; all share the one from feature to pixel.

    The networks are predicted once per march and scene and never kept (the published code keeps the first one until it
    is told to forget it, and `overfit` never tells it [D47]). The feature has the length out_features (published: the
    width of the layers, whatever out_features says [D13]).
    """

    @dataclass
    class Config:
        hypernet: HypernetConfig = field(default_factory=HypernetConfig)
        """From code to the network from position to feature."""
        pixel_generator: PixelConfig = field(default_factory=PixelConfig)
        """From feature and direction to opacity and colour."""

    def __init__(self, config: "SRNHyperNet.Config", sizes: Sizes):
        super().__init__()
        if sizes.n_code == 0:
            raise ConfigError(
                "model.implicit_function srn-hypernet predicts its weights from a code; choose model.global_encoder, "
                "or model.implicit_function.name=srn"
            )
        hyper = config.hypernet
        self.n_features = hyper.out_features
        self.position = HarmonicEmbedding(hyper.n_harmonic_functions)
        self.widths = [self.position.n_outputs, *[hyper.n_hidden_units] * (hyper.n_layers + 1), hyper.out_features]
        hidden = [sizes.n_code, *[hyper.n_hidden_units_hypernet] * (hyper.n_layers_hypernet + 1)]
        self.hypernet = nn.ModuleList(
            predictor(hidden, (n_inputs + 1) * n_outputs) for n_inputs, n_outputs in pairwise(self.widths)
        )
        self.pixel_generator = PixelGenerator(config.pixel_generator, hyper.out_features, sizes.n_channels)

    def forward(self, rays: Rays, context: Context) -> Callable[[RayPoints], Float[Tensor, "R P F"]]:
        assert context.code is not None
        code, order, counts = distinct(context.code)
        networks = self._predicted(code)
        back = order.argsort()

        def feature(points: RayPoints) -> Float[Tensor, "R P F"]:
            embedded = self.position(points.positions(rays))[order].split(counts)
            features = [run(network, own) for network, own in zip(networks, embedded, strict=True)]
            return torch.cat(features)[back] if features else points.t.new_zeros(*points.t.shape, self.n_features)

        return feature

    def pixel(self, rays: Rays, feature: Float[Tensor, "R F"]) -> tuple[Float[Tensor, "R"], Float[Tensor, "R C"]]:
        return self.pixel_generator(rays, feature)

    def _predicted(self, code: Float[Tensor, "K G"]) -> list[Network]:
        """The network of each code. A predictor gives the rows of the weights, one after the other, then the biases."""
        layers = []
        for predict, (n_inputs, n_outputs) in zip(self.hypernet, pairwise(self.widths), strict=True):
            weight, bias = predict(code).split([n_inputs * n_outputs, n_outputs], dim=-1)
            layers.append(zip(weight.view(-1, n_outputs, n_inputs), bias, strict=True))
        return list(zip(*layers, strict=True))


def predictor(widths: list[int], n_outputs: int) -> nn.Sequential:
    """A network whose outputs begin small, as the weights of a layer do."""
    last = linear(widths[-1], n_outputs)
    with torch.no_grad():
        last.weight.mul_(0.1)
    return nn.Sequential(*perceptron(widths), last)


def run(network: Network, x: Float[Tensor, "*B _"]) -> Float[Tensor, "*B _"]:
    """What a predicted network makes of x: layers as in `models.fields.srn`, their normalisation unscaled."""
    for weight, bias in network:
        x = torch.relu(F.layer_norm(F.linear(x, weight, bias), bias.shape))
    return x


def distinct(code: Float[Tensor, "R G"]) -> tuple[Float[Tensor, "K G"], Int[Tensor, "R"], list[int]]:
    """The different codes among those of rays.

    Returns:
        code: [K, G] each once; gradients go to the first ray that has it.
        order: [R] the rays, those with the first code first, and so on.
        counts: of the rays that have each code.
    """
    _, group, counts = torch.unique(code.detach(), dim=0, return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    first = order[counts.cumsum(0) - counts]
    return code[first], order, counts.tolist()
