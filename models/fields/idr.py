"""`idr`: a signed distance from one deep network (Yariv et al. 2020, IDR, sec. 3.1)."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from models import implicit_functions
from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import DistanceFunction, Sizes
from models.fields.isosurface import IsosurfaceConfig
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Context


@implicit_functions.register("idr")
class IdrField(DistanceFunction):
    """Harmonics of the position and the code go through smooth layers; the first output is the distance.

    With geometric initialisation the network starts as the distance to a sphere of radius `bias`, whatever harmonics
    and codes it sees besides the position: their weights start at zero. (The published code keeps the weights of its
    first three inputs instead, which with harmonics are no positions but sines of the first coordinate: its start is no
    sphere [D15].) Random weights miss radius and slope by a third, so the last layer is corrected for both. The
    published setting of -1 harmonics, a network that sees no position, is refused [D14].
    """

    @dataclass
    class Config:
        dims: list[int] = field(default_factory=lambda: 8 * [512])
        """Widths of the hidden layers."""
        skip_in: list[int] = field(default_factory=list)
        """Layers, counted from 0, that see the input again; the layer before gives up that much of its width."""
        n_harmonic_functions_xyz: int = 0
        """Frequencies of positions, which come along as they are."""
        geometric_init: bool = True
        """Whether the network starts as the distance to a sphere (Atzmon & Lipman 2020, SAL, theorem 1)."""
        bias: float = 1.0
        """Radius of that sphere, world units."""
        weight_norm: bool = True
        """Whether weights are stored as direction and length (Salimans & Kingma 2016)."""
        isosurface: IsosurfaceConfig | None = field(default_factory=IsosurfaceConfig)
        """Marching cubes options; null for a field that is never meshed."""

        def __post_init__(self) -> None:
            check_least(self, dims=1, n_harmonic_functions_xyz=0)
            if not self.dims:
                raise ConfigError("dims is []; expected the width of one hidden layer or more")
            wrong = [layer for layer in self.skip_in if not 0 < layer <= len(self.dims)]
            if wrong:
                raise ConfigError(
                    f"skip_in is {self.skip_in}; expected layers from 1 to {len(self.dims)} (the number of dims)"
                )
            if self.bias <= 0:
                raise ConfigError(f"bias is {self.bias}; expected a radius of more than 0")
            if not self.geometric_init and self.bias != type(self).bias:
                raise ConfigError("bias has no effect without geometric_init; remove it")

    def __init__(self, config: "IdrField.Config", sizes: Sizes):
        super().__init__()
        self.config, self.isosurface = config, config.isosurface
        self.position = HarmonicEmbedding(config.n_harmonic_functions_xyz)
        n_input = self.position.n_outputs + sizes.n_code
        n_out = [*config.dims, 1 + sizes.n_channels]
        for layer in set(config.skip_in):
            n_out[layer - 1] -= n_input
            if n_out[layer - 1] < 1:
                raise ConfigError(
                    f"model.implicit_function.skip_in has layer {layer}, for which dims[{layer - 1}] = "
                    f"{config.dims[layer - 1]} has to exceed the {n_input} inputs; widen it"
                )
        n_in = [n_input, *config.dims]
        layers = [nn.Linear(i, o) for i, o in zip(n_in, n_out, strict=True)]
        self.layers = nn.ModuleList(layers)
        if config.geometric_init:
            self._become_sphere(layers)
            self._correct(layers[-1], sizes.n_code)
        if config.weight_norm:
            for layer in layers:
                weight_norm(layer)

    def forward(
        self, points: Float[Tensor, "N 3"], context: Context
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N F"]]:
        # Half precision turns the surface to noise, so mixed precision stops here.
        with torch.autocast(points.device.type, enabled=False):
            outputs = self._network(points, context.code)
        return outputs[:, 0], outputs[:, 1:]

    def _network(self, points: Float[Tensor, "N 3"], code: Float[Tensor, "N G"] | None) -> Float[Tensor, "N _"]:
        x = self.position(points)
        if code is not None:
            x = torch.cat([x, code], dim=-1)
        *others, last = self.layers
        hidden = x
        for index, layer in enumerate(others):
            hidden = F.softplus(layer(self._joined(hidden, x, index)), beta=100)
        return last(self._joined(hidden, x, len(others)))

    def _joined(self, hidden: Tensor, x: Tensor, layer: int) -> Tensor:
        return torch.cat([hidden, x], dim=-1) / math.sqrt(2) if layer in self.config.skip_in else hidden

    @torch.no_grad()
    def _become_sphere(self, layers: list[nn.Linear]) -> None:
        """Weights of which every layer but the last keeps lengths, and the last takes their mean, less the radius."""
        *hidden, last = layers
        n_input = layers[0].in_features
        for index, layer in enumerate(hidden):
            layer.weight.normal_(0, math.sqrt(2 / layer.out_features))
            layer.bias.zero_()
            if index == 0 or index in self.config.skip_in:
                # The position stands at the end of its harmonics, before the code.
                begin, end = layer.in_features - n_input, layer.in_features - n_input + self.position.n_outputs
                layer.weight[:, begin : end - 3] = 0
                layer.weight[:, end:] = 0
        last.weight.normal_(math.sqrt(math.pi / last.in_features), 1e-4)
        if len(hidden) in self.config.skip_in:
            last.weight[:, -n_input:] = 0
        last.bias.fill_(-self.config.bias)

    @torch.no_grad()
    def _correct(self, last: nn.Linear, n_code: int) -> None:
        """Makes the distance 0 with slope 1 at the radius of the sphere, on average over directions."""
        directions = F.normalize(torch.randn(1024, 3), dim=-1)
        context = Context(torch.zeros(1024, n_code) if n_code else None)
        sdf, gradient, _ = self.with_gradient(self.config.bias * directions, context)
        slope = (gradient * directions).sum(-1).mean()
        level = (sdf.mean() - last.bias[0]) / slope
        last.weight[0] /= slope
        last.bias[0] = -level
