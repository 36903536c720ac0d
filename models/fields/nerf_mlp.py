"""`nerf-mlp`: density and colour from one deep network (Mildenhall et al. 2020, NeRF, fig. 7)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models import implicit_functions
from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import FieldOutput, RadianceFunction, Sizes
from models.fields.isosurface import IsosurfaceConfig
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays


@implicit_functions.register("nerf-mlp")
class NerfMLP(RadianceFunction):
    """Harmonics of the position go through a trunk with skips; its output gives density and, with harmonics of the
    direction, colour.

    What a ray has in common, its code and its direction, is multiplied by its share of a layer's weights once per ray
    and added to what the points give; nothing is laid side by side.
    """

    @dataclass
    class Config:
        n_harmonic_functions_xyz: int = 10
        """Frequencies of positions."""
        n_harmonic_functions_dir: int = 4
        """Frequencies of directions."""
        n_hidden_neurons_xyz: int = 256
        """Width of the trunk."""
        n_hidden_neurons_dir: int = 128
        """Width of the hidden layer of the colour."""
        n_layers_xyz: int = 8
        """Layers of the trunk."""
        append_xyz: list[int] = field(default_factory=lambda: [5])
        """Layers of the trunk, counted from 0, that see its input again."""
        input_xyz: bool = True
        """Whether the trunk sees positions; without them it sees the code alone."""
        use_integrated_positional_encoding: bool = False
        """Whether harmonics are averaged over the cone of the pixel (Barron et al. 2021, mip-NeRF, sec. 3.1)."""
        isosurface: IsosurfaceConfig | None = field(default_factory=lambda: IsosurfaceConfig(threshold=5.0))
        """Marching cubes options; null for a field that is never meshed."""

        def __post_init__(self) -> None:
            wrong = [layer for layer in self.append_xyz if not 0 < layer < self.n_layers_xyz]
            if wrong:
                raise ConfigError(
                    f"append_xyz is {self.append_xyz}; expected layers from 1 to {self.n_layers_xyz - 1} "
                    "(n_layers_xyz - 1)"
                )

    def __init__(self, config: "NerfMLP.Config", sizes: Sizes):
        super().__init__()
        self.config, self.isosurface = config, config.isosurface
        if not config.input_xyz and sizes.n_code == 0:
            raise ConfigError(
                "model.implicit_function.input_xyz is false, so that the network sees nothing; set it to true or give "
                "model.global_encoder"
            )
        self.position = HarmonicEmbedding(config.n_harmonic_functions_xyz)
        self.direction = HarmonicEmbedding(config.n_harmonic_functions_dir)
        n_input = self.position.n_outputs * config.input_xyz + sizes.n_code
        width, n_color = config.n_hidden_neurons_xyz, config.n_hidden_neurons_dir
        trunk = [
            nn.Linear(n_input if layer == 0 else width + n_input * (layer in config.append_xyz), width)
            for layer in range(config.n_layers_xyz)
        ]
        self.trunk = nn.ModuleList(trunk)
        self.intermediate = nn.Linear(width, width)
        self.density = nn.Linear(width, 1)
        self.color_hidden = nn.Linear(width + self.direction.n_outputs, n_color)
        self.color = nn.Linear(n_color, sizes.n_channels)
        for layer in (*trunk, self.intermediate, self.density):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.density.bias)

    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        shape = points.t.shape
        hidden = self._trunk(self._embedded(rays, points), context.code, points.n_points)
        return FieldOutput(self.density(hidden).view(shape), self._color(hidden.view(*shape, hidden.shape[1]), rays))

    def _embedded(self, rays: Rays, points: RayPoints) -> Float[Tensor, "N E"] | None:
        """Harmonics of the positions, or None where only the code counts."""
        if not self.config.input_xyz:
            return None
        if not self.config.use_integrated_positional_encoding:
            return self.position(points.positions(rays).flatten(0, 1))
        if points.edges is None or rays.radius is None:
            raise ConfigError(
                "model.implicit_function.use_integrated_positional_encoding needs the cones of pixels; set "
                "model.ray_sampler.cast_ray_bundle_as_cone to true"
            )
        mean, variance = cone_gaussians(rays, points)
        return self.position(mean.flatten(0, 1), variance.flatten(0, 1))

    def _trunk(self, embedded: Tensor | None, code: Tensor | None, n_points: int) -> Float[Tensor, "N H"]:
        n_embedded = 0 if embedded is None else embedded.shape[1]
        hidden = None
        for index, layer in enumerate(self.trunk):
            assert isinstance(layer, nn.Linear)
            weight, total, n_hidden = layer.weight, layer.bias, 0
            if index == 0 or index in self.config.append_xyz:
                n_hidden = 0 if hidden is None else hidden.shape[1]
                if code is not None:
                    per_ray = F.linear(code, weight[:, n_hidden + n_embedded :], total)
                    total = per_ray.repeat_interleave(n_points, dim=0)
                if embedded is not None:
                    total = torch.addmm(total, embedded, weight[:, n_hidden : n_hidden + n_embedded].T)
                weight = weight[:, :n_hidden]
            if hidden is not None:
                total = torch.addmm(total, hidden, weight.T)
            hidden = torch.relu_(total)
        assert hidden is not None
        return hidden

    def _color(self, hidden: Float[Tensor, "R P H"], rays: Rays) -> Float[Tensor, "R P C"]:
        """Colour in [0, 1]. The two layers before the first activation are multiplied with each other, not one after
        the other with every point."""
        width = self.config.n_hidden_neurons_xyz
        of_trunk, of_direction = self.color_hidden.weight[:, :width], self.color_hidden.weight[:, width:]
        bias = torch.addmv(self.color_hidden.bias, of_trunk, self.intermediate.bias)
        per_ray = F.linear(self.direction(F.normalize(rays.directions, dim=-1)), of_direction, bias)
        per_point = F.linear(hidden, of_trunk @ self.intermediate.weight)
        return torch.sigmoid(self.color(torch.relu_(per_point + per_ray[:, None])))


def cone_gaussians(rays: Rays, points: RayPoints) -> tuple[Float[Tensor, "R P 3"], Float[Tensor, "R P 3"]]:
    """Mean and variance by axis of the points in intervals of cones (Barron et al. 2021, mip-NeRF, eq. 7 and 16).

    Args:
        rays: with the radii of their cones.
        points: with edges.
    """
    assert points.edges is not None and rays.radius is not None
    start, end = points.edges[:, :-1], points.edges[:, 1:]
    middle, half = 0.5 * (start + end), 0.5 * (end - start)
    middle2, half2 = middle.square(), half.square()
    # An interval of no length at the origin is a point.
    share = half2 / (3 * middle2 + half2).clamp_min(torch.finfo(half.dtype).tiny)
    t = middle + 2 * middle * share
    along = half2 / 3 - 4 / 15 * share.square() * (12 * middle2 - half2)
    across = rays.radius[:, None].square() * (middle2 / 4 + 5 / 12 * half2 - 4 / 15 * half2 * share)
    direction2 = rays.directions.square()
    sideways = 1 - direction2 / direction2.sum(-1, keepdim=True).clamp_min(1e-6)
    variance = along[..., None] * direction2[:, None] + across[..., None] * sideways[:, None]
    return torch.addcmul(rays.origins[:, None], rays.directions[:, None], t[..., None]), variance
