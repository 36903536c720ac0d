"""`nerf-mlp`: density and colour from one deep network (Mildenhall et al. 2020, NeRF, fig. 7)."""

from dataclasses import dataclass, field

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models import implicit_functions, ops
from models.fields.implicit import FieldOutput, RadianceFunction, Sizes
from models.fields.isosurface import IsosurfaceConfig
from models.fields.point_embedding import PointEmbedding
from models.fields.radiance_heads import RadianceHeads
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
        self.position = PointEmbedding(config.n_harmonic_functions_xyz, config.use_integrated_positional_encoding)
        n_input = self.position.n_outputs * config.input_xyz + sizes.n_code
        width = config.n_hidden_neurons_xyz
        trunk = [
            nn.Linear(n_input if layer == 0 else width + n_input * (layer in config.append_xyz), width)
            for layer in range(config.n_layers_xyz)
        ]
        for layer in trunk:
            nn.init.xavier_uniform_(layer.weight)
        self.trunk = nn.ModuleList(trunk)
        self.heads = RadianceHeads(
            width, config.n_hidden_neurons_dir, config.n_harmonic_functions_dir, sizes.n_channels
        )

    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        shape = points.t.shape
        if self.config.input_xyz:
            embedded = self.position(rays, points).flatten(0, 1)
        else:
            embedded = points.t.new_empty(shape.numel(), 0)
        hidden = self._trunk(embedded, context.code, shape[1])
        return self.heads(hidden.view(*shape, self.config.n_hidden_neurons_xyz), rays)

    def _trunk(
        self, embedded: Float[Tensor, "N E"], code: Float[Tensor, "R G"] | None, n_points: int
    ) -> Float[Tensor, "N H"]:
        weights, addends = [], []
        for index, layer in enumerate(self.trunk):
            assert isinstance(layer, nn.Linear)
            weight, addend = layer.weight, layer.bias
            if code is not None and (index == 0 or index in self.config.append_xyz):
                weight, of_code = weight.split([weight.shape[1] - code.shape[1], code.shape[1]], dim=1)
                addend = F.linear(code, of_code, addend).repeat_interleave(n_points, dim=0)
            weights.append(weight)
            addends.append(addend)
        return ops.skip_network(embedded, weights, addends, self.config.append_xyz)
