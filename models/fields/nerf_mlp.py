"""`nerf-mlp`: density and colour from one deep network (Mildenhall et al. 2020, NeRF, fig. 7)."""

from dataclasses import dataclass, field

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models import implicit_functions, ops
from models.fields.implicit import FieldOutput, RadianceFunction, Sizes
from models.fields.isosurface import IsosurfaceConfig
from models.fields.point_embedding import PointEmbedding
from models.fields.radiance_heads import RadianceConfig, RadianceHeads
from models.ops import Gated
from utils.types import Context, RayPoints, Rays


@implicit_functions.register("nerf-mlp")
class NerfMLP(RadianceFunction):
    """Harmonics of the position go through a trunk with skips; its output gives density and, with harmonics of the
    direction, colour.

    What a ray has in common, its code and its direction, is multiplied by its share of a layer's weights once per ray
    and added to what the points give; nothing is laid side by side. Where only what is dense counts, points of empty
    space cost a CPU a pass through the trunk and nothing else.
    """

    @dataclass
    class Config(RadianceConfig):
        isosurface: IsosurfaceConfig | None = field(default_factory=lambda: IsosurfaceConfig(threshold=5.0))
        """Marching cubes options; null for a field that is never meshed."""

    def __init__(self, config: "NerfMLP.Config", sizes: Sizes):
        super().__init__()
        self.config, self.isosurface = config, config.isosurface
        self.position = PointEmbedding(config.n_harmonic_functions_xyz, config.use_integrated_positional_encoding)
        n_input, width = config.n_inputs(self.position.n_outputs, sizes), config.n_hidden_neurons_xyz
        trunk = [
            nn.Linear(n_input if layer == 0 else width + n_input * (layer in config.append_xyz), width)
            for layer in range(config.n_layers_xyz)
        ]
        for layer in trunk:
            nn.init.xavier_uniform_(layer.weight)
        self.trunk = nn.ModuleList(trunk)
        self.heads = RadianceHeads(config, sizes.n_channels)

    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        shape = points.t.shape
        if self.config.input_xyz:
            embedded = self.position(rays, points).flatten(0, 1)
        else:
            embedded = points.t.new_empty(shape.numel(), 0)
        density, hidden, rows = self._trunk(embedded, context, shape[1])
        density, of_direction = density.view(shape), self.heads.of_directions(rays)
        if rows is None:
            hidden = hidden.view(*shape, self.config.n_hidden_neurons_xyz)
            return FieldOutput(density, self.heads.colors(hidden, of_direction[:, None]))
        color = self.heads.colors(hidden, of_direction.index_select(0, rows // max(shape[1], 1)))
        everywhere = color.new_zeros(shape.numel(), color.shape[1]).index_copy(0, rows, color)
        return FieldOutput(density, everywhere.view(*shape, color.shape[1]))

    def _trunk(self, embedded: Float[Tensor, "N E"], context: Context, n_points: int) -> Gated:
        weights, addends, code = [], [], context.code
        for index, layer in enumerate(self.trunk):
            assert isinstance(layer, nn.Linear)
            weight, addend = layer.weight, layer.bias
            if code is not None and (index == 0 or index in self.config.append_xyz):
                weight, of_code = weight.split([weight.shape[1] - code.shape[1], code.shape[1]], dim=1)
                addend = F.linear(code, of_code, addend).repeat_interleave(n_points, dim=0)
            weights.append(weight)
            addends.append(addend)
        density = self.heads.density
        return ops.skip_network(
            embedded, weights, addends, self.config.append_xyz, (density.weight, density.bias), context.only_dense
        )
