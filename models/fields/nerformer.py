"""`nerformer`: density and colour from a transformer over source views and points (Reizenstein et al. 2021, Common
Objects in 3D)."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from models import implicit_functions
from models.fields.implicit import FieldOutput, RadianceFunction, Sizes
from models.fields.point_embedding import PointEmbedding
from models.fields.radiance_heads import RadianceConfig, RadianceHeads
from models.fields.transformer import N_HEADS, ViewRayTransformer
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays


@implicit_functions.register("nerformer")
class NeRFormer(RadianceFunction):
    """Every point is known by its position, by the code of its scene and by what each source view shows of it.

    Points of a ray attend to each other, so what is at a point depends on where the others are: there is no field to
    be meshed.
    """

    @dataclass
    class Config(RadianceConfig):
        n_hidden_neurons_xyz: int = 80
        """Width of the transformer."""
        n_layers_xyz: int = 2
        """Layers of the transformer, each over views and over points."""
        append_xyz: list[int] = field(default_factory=lambda: [1])
        """Layers of the transformer, counted from 0, that see its input again."""
        transformer_dim_down_factor: float = 2.0
        """How much narrower each layer is than the one before it."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.transformer_dim_down_factor <= 0:
                raise ConfigError(
                    f"transformer_dim_down_factor is {self.transformer_dim_down_factor}; expected more than 0"
                )
            if any(width < N_HEADS or width % N_HEADS for width in self.widths):
                raise ConfigError(
                    f"n_hidden_neurons_xyz {self.n_hidden_neurons_xyz} and transformer_dim_down_factor "
                    f"{self.transformer_dim_down_factor} make layers of widths {self.widths}; expected multiples of "
                    f"{N_HEADS}"
                )

        @property
        def widths(self) -> list[int]:
            """Of the transformer's layers."""
            n, factor = self.n_hidden_neurons_xyz, self.transformer_dim_down_factor
            return [round(n / factor**layer) for layer in range(self.n_layers_xyz + 1)]

    def __init__(self, config: "NeRFormer.Config", sizes: Sizes):
        super().__init__()
        self.config = config
        self.position = PointEmbedding(config.n_harmonic_functions_xyz, config.use_integrated_positional_encoding)
        self.n_position = self.position.n_outputs * config.input_xyz
        n_inputs = config.n_inputs(self.position.n_outputs, sizes)
        self.trunk = ViewRayTransformer(config.widths, config.n_hidden_neurons_xyz, n_inputs, config.append_xyz)
        self.heads = RadianceHeads(config, sizes.n_channels)

    def forward(
        self,
        rays: Rays,
        points: RayPoints,
        context: Context,
        pooled: Float[Tensor, "R S P F"] | None = None,
    ) -> FieldOutput:
        """What is at the points.

        Args:
            pooled: what S source views show at the points, `sizes.n_pooled` numbers each; None without source views.
        """
        position = self.position(rays, points)[:, None, :, : self.n_position]
        known = [position, pooled, None if context.code is None else context.code[:, None, None]]
        return self.heads(self.trunk([part for part in known if part is not None]), rays)
