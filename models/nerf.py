"""`nerf`: a density field with colour (Mildenhall et al. 2020) on hash grids (Müller et al. 2022).

Bounded scenes live in a box. With `learned_background` all of space is contracted into one field and intervals
grow with distance.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models import geometries, models, textures
from models.base import MarchingConfig, Model, StepSize
from models.fields.density import VolumeDensity
from models.fields.isosurface import IsosurfaceConfig
from models.fields.radiance import VolumeRadiance, check_width
from models.rendering.capacity import Capacity
from models.rendering.marching import March, cone_angle, visible
from models.rendering.occupancy import Everywhere, FieldView, MovingAverage
from models.rendering.opacity import density_alpha
from models.rendering.volume import render_density
from utils.config import slot
from utils.registry import ConfigError
from utils.types import Rays, Rendered, Samples

# Range and shortest interval of unbounded rays, world units (the object has radius 1 or so).
NEAR, FAR, STEP = 0.2, 1e4, 0.01


@models.register("nerf")
class NeRF(Model):
    """A neural radiance field."""

    @dataclass
    class Config(MarchingConfig):
        geometry: object = slot(geometries, default=VolumeDensity.Config)
        """The density field."""
        texture: object = slot(textures, default=VolumeRadiance.Config)
        """The colour."""
        occupancy: MovingAverage.Config = field(default_factory=MovingAverage.Config)
        """How empty space is known."""

    quantities = frozenset({"samples", "weights"})
    is_distance = False

    def __init__(self, config: "NeRF.Config"):
        super().__init__(config)
        self.config: NeRF.Config = config
        is_unbounded = config.learned_background
        contraction = "sphere" if is_unbounded else "box"
        self.is_unbounded = is_unbounded
        self.geometry: VolumeDensity = geometries.make(config.geometry, contraction)
        if not isinstance(self.geometry, VolumeDensity):
            raise ConfigError("model.geometry.name: nerf needs a density; choose volume-density, or model.name=neus")
        self.texture: VolumeRadiance = textures.make(config.texture)
        check_width("model.texture", self.texture, self.geometry.n_features, "model.geometry.feature_dim")
        if not config.grid_prune:
            self.occupancy = Everywhere(self.radius, contraction)
        else:
            self.occupancy = MovingAverage(config.occupancy, self.radius, contraction, config.grid_prune_occ_thre)
        if is_unbounded:
            self.march = March(STEP, cone_angle(FAR, config.num_samples_per_ray), backend=config.backend)
        else:
            self.march = March(3**0.5 * 2 * self.radius / config.num_samples_per_ray, backend=config.backend)
        self.kept = Capacity()
        self.load_weights()

    @property
    def isosurface(self) -> IsosurfaceConfig | None:
        return self.geometry.isosurface

    @property
    def step_size(self) -> StepSize:
        return self.config.steps(self.config.num_samples_per_ray)

    def update(self, step: int, seed: int) -> None:
        self.geometry.update(step)
        self.texture.update(step)
        if self.training:
            with torch.no_grad():
                opacity = lambda points: self.geometry.density(points) * self.march.step  # noqa: E731
                self.occupancy.refresh(step, FieldView(opacity), seed)

    def forward(self, rays: Rays) -> Rendered:
        self.march.is_jittered = self.training and self.config.randomized
        ends = [torch.full_like(rays.origins[:, 0], end) for end in (NEAR, FAR)] if self.is_unbounded else []
        samples = self.march(rays, self.occupancy, *ends)
        samples = self.kept.keep(samples, visible(samples, rays, self._alpha, self.config.backend))
        return render_density(rays, samples, self.geometry, self.texture, self.config.backend)

    def level(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return self.geometry.level(points)

    def may_hold_surface(self, points: Float[Tensor, "N 3"], reach: float) -> Bool[Tensor, "N"]:
        assert self.isosurface is not None
        # Cells count as empty below this density: where the surface is thinner than that, they tell nothing of it.
        told = self.config.grid_prune_occ_thre / self.march.step
        if self.isosurface.threshold <= told:
            return super().may_hold_surface(points, reach)
        return self.occupancy.near(points, reach)

    def surface_color(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        _, feature = self.geometry(points)
        return self.texture(feature, -normals).clamp(0, 1)

    def _alpha(self, points: Float[Tensor, "N 3"], samples: Samples) -> Float[Tensor, "N"]:
        return density_alpha(self.geometry.density(points), samples.width)
