"""The baseline of `nerf-mlp`: the network as it is usually written, every number of a point laid side by side."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.fields.implicit import FieldOutput, RadianceFunction
from models.fields.nerf_mlp import NerfMLP
from utils.types import Context, RayPoints, Rays


class PlainNerf(RadianceFunction):
    """The same function of the same parameters: harmonics and directions of every point, a skip that concatenates, one
    layer after the other, autograd for everything. It knows no codes and no cones."""

    def __init__(self, function: NerfMLP):
        super().__init__()
        self.function, self.isosurface = function, function.isosurface

    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        function, heads, shape = self.function, self.function.heads, points.t.shape
        embedded = harmonics(points.positions(rays).flatten(0, 1), function.config.n_harmonic_functions_xyz)
        hidden = embedded
        for index, layer in enumerate(function.trunk):
            if index in function.config.append_xyz:
                hidden = torch.cat([hidden, embedded], dim=-1)
            hidden = torch.relu(layer(hidden))
        directions = F.normalize(rays.directions, dim=-1)[:, None].expand(*shape, 3).reshape(-1, 3)
        seen = harmonics(directions, function.config.n_harmonic_functions_dir)
        color = torch.relu(heads.color_hidden(torch.cat([heads.intermediate(hidden), seen], dim=-1)))
        return FieldOutput(heads.density(hidden).view(shape), torch.sigmoid(heads.color(color)).view(*shape, -1))


def harmonics(x: Float[Tensor, "N 3"], n: int) -> Float[Tensor, "N E"]:
    """Sines, then cosines, then x itself."""
    phase = (x[..., None] * 2.0 ** torch.arange(n, device=x.device)).reshape(len(x), -1)
    return torch.cat([torch.sin(phase), torch.cos(phase), x], dim=-1)
