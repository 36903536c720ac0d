"""`voxel-grid`: density and colour from two grids of features (Chen et al. 2022, TensoRF)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models import decoders, implicit_functions, voxel_grids
from models.fields.decoders import Decoder, MLPDecoder
from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import FieldOutput, RadianceFunction, Sizes
from models.fields.isosurface import IsosurfaceConfig
from models.fields.scaffold import Scaffold
from models.fields.voxel_grids import FullGrid, VoxelGrid
from utils.config import slot
from utils.notice import notice
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays

_WHERE = "model.implicit_function"


@dataclass
class ScaffoldConfig:
    """Options of leaving out empty space."""

    calculating_steps: list[int]
    """Training steps at which it is found out which cells are empty; until the first, none is."""
    resolution: list[int] = field(default_factory=lambda: [128, 128, 128])
    """Cells along x, y and z of the box of the density."""
    empty_space_threshold: float = 0.001
    """Density up to which a cell is empty, inverse world units."""
    max_pool_kernel_size: int = 3
    """Side, in cells, of what an occupied cell keeps around itself; odd."""
    cropping_steps: list[int] = field(default_factory=list)
    """Training steps at which both grids shrink to the box around what is occupied, whose parts they then resolve
    better; optimisers begin anew with them."""

    def __post_init__(self) -> None:
        if not self.calculating_steps or min(self.calculating_steps) < 0:
            raise ConfigError(f"calculating_steps is {self.calculating_steps}; expected one step of 0 or more, or more")
        if len(self.resolution) != 3 or min(self.resolution) < 1:
            raise ConfigError(f"resolution is {self.resolution}; expected three numbers of 1 or more")
        if self.max_pool_kernel_size < 1 or self.max_pool_kernel_size % 2 == 0:
            raise ConfigError(f"max_pool_kernel_size is {self.max_pool_kernel_size}; expected an odd number")
        if min(self.cropping_steps, default=self.calculating_steps[0]) < min(self.calculating_steps):
            raise ConfigError(
                f"cropping_steps is {self.cropping_steps}; nothing is known to be empty before the first of "
                f"calculating_steps, {min(self.calculating_steps)}"
            )

    def last_changes(self) -> dict[str, int]:
        return {"calculating_steps": max(self.calculating_steps), "cropping_steps": max(self.cropping_steps, default=0)}


@implicit_functions.register("voxel-grid")
class VoxelFunction(RadianceFunction):
    """Features of a point, interpolated in a grid, go through harmonics and a decoder; one grid is for density, one for
    colour, whose decoder sees harmonics of the direction, too.

    Resolutions, empty space and boxes change at the training steps that the options tell. (In the published code
    nothing ever calls for it [D17].)
    """

    @dataclass
    class Config:
        voxel_grid_density: object = slot(voxel_grids, default=FullGrid.Config)
        """Features for the density."""
        voxel_grid_color: object = slot(voxel_grids, default=FullGrid.Config)
        """Features for the colour."""
        n_harmonic_functions_density: int = 6
        """Frequencies of the density's features, which come along as they are."""
        n_harmonic_functions_color: int = 6
        """Frequencies of the colour's features."""
        n_harmonic_functions_dir: int | None = 6
        """Frequencies of directions; null for colours that look the same from everywhere."""
        decoder_density: object = slot(decoders, default=MLPDecoder.Config)
        """From harmonics to density."""
        decoder_color: object = slot(decoders, default=MLPDecoder.Config)
        """From harmonics to colour."""
        scaffold: ScaffoldConfig | None = None
        """How empty space is found and left out; null asks everywhere."""
        return_density_grid: bool = False
        """Whether the densities of all vertices are there for lambda_density_tv."""
        isosurface: IsosurfaceConfig | None = field(default_factory=lambda: IsosurfaceConfig(threshold=5.0))
        """Marching cubes options; null for a field that is never meshed."""

    def __init__(self, config: "VoxelFunction.Config", sizes: Sizes):
        super().__init__()
        self.config, self.isosurface = config, config.isosurface
        if sizes.n_code:
            raise ConfigError(f"{_WHERE}: voxel-grid takes no code; remove model.global_encoder or choose nerf-mlp")
        self.density_grid: VoxelGrid = voxel_grids.make(config.voxel_grid_density)
        self.color_grid: VoxelGrid = voxel_grids.make(config.voxel_grid_color)
        self.density_embedding = HarmonicEmbedding(
            config.n_harmonic_functions_density, self.density_grid.config.n_features
        )
        self.color_embedding = HarmonicEmbedding(config.n_harmonic_functions_color, self.color_grid.config.n_features)
        n_directions = config.n_harmonic_functions_dir
        self.direction = None if n_directions is None else HarmonicEmbedding(n_directions)
        n_seen = self.color_embedding.n_outputs + (0 if self.direction is None else self.direction.n_outputs)
        self.density_decoder: Decoder = decoders.make(
            config.decoder_density, self.density_embedding.n_outputs, 1, "relu"
        )
        self.color_decoder: Decoder = decoders.make(config.decoder_color, n_seen, sizes.n_channels, "sigmoid")
        self.scaffold = None if config.scaffold is None else Scaffold(config.scaffold.resolution)
        self.quantities = frozenset({"density_grid"} if config.return_density_grid else ())
        self._arranged_for: int | None = None

    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        shape = points.t.shape
        places = points.positions(rays).flatten(0, 1)
        ray = torch.arange(len(rays), device=places.device).repeat_interleave(shape[1])
        directions = None
        if self.direction is not None:
            directions = self.direction(F.normalize(rays.directions, dim=-1))
        if self.scaffold is None:
            density, color = self._density(places), self._color(places, directions, ray)
        else:
            chosen = self.scaffold(places).nonzero()[:, 0]
            places, ray = places[chosen], ray[chosen]
            density = _spread(self._density(places), chosen, shape.numel())
            color = _spread(self._color(places, directions, ray), chosen, shape.numel())
        return FieldOutput(density.view(shape), color.view(*shape, -1))

    def density_at_vertices(self) -> Float[Tensor, "1 X Y Z"]:
        values = self.density_grid.dense()
        features = values.flatten(1).T
        density = torch.relu(self.density_decoder(self.density_embedding(features)))
        return density.view(1, *values.shape[1:])

    def arrange(self, step: int) -> list[nn.Parameter]:
        if step == self._arranged_for:
            return []
        self._arranged_for = step
        replaced = self.density_grid.follow(step) + self.color_grid.follow(step)
        options = self.config.scaffold
        if self.scaffold is not None and options is not None:
            if step in options.calculating_steps:
                reach = options.max_pool_kernel_size // 2
                self.scaffold.fill(self.density_grid.box(), self._density_only, options.empty_space_threshold, reach)
            if step in options.cropping_steps:
                replaced += self._crop(self.scaffold, step)
        return list(dict.fromkeys(replaced))

    def _crop(self, scaffold: Scaffold, step: int) -> list[nn.Parameter]:
        box = scaffold.box()
        if box is None:
            notice(f"{_WHERE}.scaffold: everything is empty at step {step}, so nothing is cropped")
            return []
        return self.density_grid.crop(*box) + self.color_grid.crop(*box)

    def _density(self, places: Float[Tensor, "N 3"]) -> Float[Tensor, "N 1"]:
        return self.density_decoder(self.density_embedding(self.density_grid(places)))

    def _density_only(self, places: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return self._density(places)[:, 0]

    def _color(
        self, places: Float[Tensor, "N 3"], directions: Float[Tensor, "R D"] | None, ray: Tensor
    ) -> Float[Tensor, "N C"]:
        seen = self.color_embedding(self.color_grid(places))
        if directions is not None:
            seen = torch.cat([seen, directions[ray]], dim=-1)
        return self.color_decoder(seen)


def _spread(values: Float[Tensor, "M C"], rows: Tensor, n: int) -> Float[Tensor, "n C"]:
    """Values in those rows of n that are not zero."""
    return values.new_zeros(n, values.shape[1]).index_copy(0, rows, values)
