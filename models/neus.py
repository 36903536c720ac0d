"""`neus`: a signed distance field rendered as a volume (Wang et al. 2021, NeuS) on hash grids.

Inside the box of half side `radius` light is stopped by the surface; what lies beyond is a plain backdrop or, with
`learned_background`, a second, contracted density field.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from models import geometries, models, occupancies, opacities, textures
from models.base import MarchingConfig, Model, StepSize
from models.fields.density import VolumeDensity
from models.fields.isosurface import IsosurfaceConfig
from models.fields.radiance import VolumeRadiance, check_width
from models.fields.sdf import VolumeSDF
from models.rendering.capacity import Capacity
from models.rendering.composite import composite
from models.rendering.marching import March, box_range, cone_angle, contributing, step_length, visible
from models.rendering.occupancy import EMPTY, Everywhere, FieldView, MovingAverage, Occupancy, SurfaceShell
from models.rendering.opacity import NeusOpacity, OpacityLaw, VolsdfOpacity, annealed_slope, density_alpha
from models.rendering.variance import Variance, VarianceConfig
from models.rendering.volume import render_density
from utils.config import slot
from utils.geometry import unit
from utils.registry import ConfigError
from utils.types import Neighbors, Probes, Rays, Rendered, Samples

# Range and shortest interval of background rays, world units.
NEAR_BACKGROUND, FAR_BACKGROUND, STEP_BACKGROUND = 0.1, 1e3, 0.01


@models.register("neus")
class NeuS(Model):
    """A neural implicit surface."""

    @dataclass
    class Config(MarchingConfig):
        cos_anneal_end: int = 0
        """Step until which rays that leave the surface are let in ever less; 0 switches annealing off."""
        variance: VarianceConfig = field(default_factory=VarianceConfig)
        """Width of the surface."""
        geometry: object = slot(geometries, default=VolumeSDF.Config)
        """The signed distance field."""
        texture: object = slot(textures, default=VolumeRadiance.Config)
        """The colour."""
        opacity: object = slot(opacities, default=NeusOpacity.Config)
        """How distances become opacities."""
        occupancy: object = slot(occupancies, default=MovingAverage.Config)
        """How empty space is known."""
        adaptive_step: bool = False
        """Whether steps follow the width of the surface, from four published steps down to one."""
        min_weight: float = 0.0
        """Share of its ray's colour below which a sample is left out, told by a pass without gradients; 0 keeps all."""
        num_probes: int = 0
        """Random points of the box at which losses see the field too, so that empty space is supervised."""
        num_neighbors: int = 0
        """Samples, drawn at random, for which losses compare the normal with that of a neighbour, one
        finite_difference_eps away in the tangent plane."""
        num_samples_per_ray_bg: int = 0
        """Intervals between the box and infinity."""
        grid_prune_occ_thre_bg: float = 0.01
        """Opacity of an interval below which a background cell counts as empty."""
        geometry_bg: object = slot(geometries, default=None)
        """Density field of the background."""
        texture_bg: object = slot(textures, default=None)
        """Colour of the background."""
        occupancy_bg: MovingAverage.Config = field(default_factory=MovingAverage.Config)
        """How empty space is known in the background."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if (
                isinstance(self.occupancy, SurfaceShell.Config)
                and self.grid_prune_occ_thre != MarchingConfig.grid_prune_occ_thre
            ):
                raise ConfigError(
                    "grid_prune_occ_thre has no effect with occupancy.name=sdf-shell, whose cells follow the distance; "
                    "remove it, or set occupancy.name to moving-average"
                )
            if isinstance(self.opacity, VolsdfOpacity.Config) and self.cos_anneal_end:
                raise ConfigError(
                    "cos_anneal_end has no effect with opacity.name=volsdf, which does not ask for angles; "
                    "set it to 0, or opacity.name to neus"
                )
            missing = self.geometry_bg is None or self.texture_bg is None or self.num_samples_per_ray_bg < 1
            if self.learned_background and missing:
                raise ConfigError(
                    "learned_background needs geometry_bg, texture_bg and num_samples_per_ray_bg; "
                    "give them (configs/neus-dtu.yaml does) or set learned_background to false"
                )

        def last_changes(self) -> dict[str, int]:
            return {"cos_anneal_end": self.cos_anneal_end}

    is_distance = True

    def __init__(self, config: "NeuS.Config"):
        super().__init__(config)
        self.config: NeuS.Config = config
        self.geometry: VolumeSDF = geometries.make(config.geometry, "box")
        if not isinstance(self.geometry, VolumeSDF):
            raise ConfigError("model.geometry.name: neus needs a distance; choose volume-sdf, or model.name=nerf")
        self.texture: VolumeRadiance = textures.make(config.texture)
        extra = 3 if self.texture.uses_extras else 0
        source = f"model.geometry.feature_dim{' and the normal' if extra else ''}"
        check_width("model.texture", self.texture, self.geometry.n_features + extra, source)
        self.opacity: OpacityLaw = opacities.make(config.opacity)
        self.variance = Variance(config.variance)
        self.occupancy: Occupancy = Everywhere(self.radius, "box")
        if config.grid_prune:
            self.occupancy = occupancies.make(config.occupancy, self.radius, "box", config.grid_prune_occ_thre)
        self.base_step = 3**0.5 * 2 * self.radius / config.num_samples_per_ray
        self.march, self.kept = March(self.base_step, backend=config.backend), Capacity()
        self.progress = 1.0
        if config.learned_background:
            self._make_background(config)
        self.quantities = frozenset(
            {"samples", "weights", "sdf", "gradient", "sharpness", "normal"}
            | ({"laplacian"} if self.geometry.has_laplacian else set())
            | ({"background"} if config.learned_background else set())
            | ({"probes"} if config.num_probes else set())
            | ({"neighbors"} if config.num_neighbors else set())
        )
        self.load_weights()

    @property
    def isosurface(self) -> IsosurfaceConfig | None:
        return self.geometry.isosurface

    @property
    def step_size(self) -> StepSize:
        return self.config.steps(self.config.num_samples_per_ray + self.config.num_samples_per_ray_bg)

    def update(self, step: int, seed: int) -> None:
        config = self.config
        self.geometry.update(step)
        self.texture.update(step)
        self.variance.update(step)
        self.progress = min(1.0, step / config.cos_anneal_end) if config.cos_anneal_end else 1.0
        with torch.no_grad():
            sharpness = self.variance()
            if config.adaptive_step:
                self.march.step = step_length(sharpness, self.base_step, 4 * self.base_step)
            if self.training:
                self.occupancy.refresh(step, FieldView(self._head_on_alpha, self.geometry.sdf, sharpness), seed)
        if config.learned_background:
            self.geometry_bg.update(step)
            self.texture_bg.update(step)
            if self.training:
                with torch.no_grad():
                    opacity = lambda points: self.geometry_bg.density(points) * STEP_BACKGROUND  # noqa: E731
                    self.occupancy_bg.refresh(step, FieldView(opacity), seed)

    def forward(self, rays: Rays) -> Rendered:
        config = self.config
        self.march.is_jittered = self.training and config.randomized
        samples = self._contributing(rays, self.march(rays, self.occupancy))
        rendered = self._foreground(rays, samples)
        if config.learned_background:
            near, far = box_range(rays, self.radius)
            begin = torch.where(far > near, far, NEAR_BACKGROUND)
            behind = self._background(rays, begin, 1 - rendered.opacity.detach())
            rendered.background = behind
            rendered.n_samples = rendered.n_samples + behind.n_samples
        backdrop = rays.backdrop if rendered.background is None else rendered.background.color
        rendered.color = rendered.color + (1 - rendered.opacity[:, None]) * backdrop
        return rendered

    def level(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return self.geometry.level(points)

    def surface_color(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        if not self.texture.uses_extras:
            return self.texture(self.geometry.feature(points), -normals).clamp(0, 1)
        # The network knows the field's own normals; those of a decimated mesh smooth away what they tell.
        field = self.geometry(points)
        return self.texture(field.feature, -normals, unit(field.gradient)).clamp(0, 1)

    @torch.no_grad()
    def _contributing(self, rays: Rays, samples: Samples) -> Samples:
        config = self.config
        if config.min_weight == 0:
            return samples
        sdf = self.geometry.sdf(samples.points(rays))
        return self.kept.keep(
            samples, contributing(samples, sdf, self.opacity, self.variance(), config.min_weight, config.backend)
        )

    def _foreground(self, rays: Rays, samples: Samples) -> Rendered:
        """Colour premultiplied by opacity."""
        points = samples.points(rays)
        probes = self._probe_points(points)
        everywhere = torch.cat([points.T, probes.T], dim=1).T  # feature-major, as kernels want it
        field, beside = self.geometry(everywhere).split(len(samples))
        normal = unit(field.gradient)
        directions = samples.of_rays(rays.directions)
        sharpness = self.variance()
        slope = annealed_slope((directions * normal).sum(-1), self.progress)
        alpha = self.opacity(field.sdf, slope, samples.width, sharpness, self.config.backend)
        color = self.texture(field.feature, directions, normal)
        channels = [color, normal] if "normal" in self.asked or not self.training else [color]
        seen = composite(samples, alpha, *channels, backend=self.config.backend)
        rendered = Rendered(seen.sums[0], seen.opacity, seen.depth, samples=samples, n_samples=samples.n_wanted)
        rendered.normal = unit(seen.sums[1]) if len(channels) > 1 else None
        if not self.training:
            return rendered
        rendered.weights, rendered.sharpness = seen.weights, sharpness
        rendered.sdf, rendered.gradient, rendered.laplacian = field.sdf, field.gradient, field.laplacian
        if len(probes):
            rendered.probes = Probes(beside.sdf, beside.gradient, self.occupancy.at(probes) == EMPTY)
        if self.config.num_neighbors:
            rendered.neighbors = self._neighbors(samples, points.detach(), normal.detach())
        rendered.tap_share = self.geometry.tap_share
        return rendered

    def _neighbors(self, samples: Samples, points: Float[Tensor, "N 3"], normal: Float[Tensor, "N 3"]) -> Neighbors:
        """The field beside random samples, in random directions at right angles to their normals."""
        n = self.config.num_neighbors if len(samples) else 0
        # Padding follows the last sample; a ray batch without samples draws padding, which does not count.
        row = (torch.rand(n, device=points.device) * samples.offsets[-1]).long()
        tangent = unit(torch.linalg.cross(normal[row], torch.randn(n, 3, device=points.device)))
        place = points[row] + self.geometry.tap_distance * tangent
        gradient = self.geometry(place.clamp(-self.radius, self.radius)).gradient
        return Neighbors(row, gradient, samples.is_sample[row])

    def _probe_points(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "P 3"]:
        n = self.config.num_probes if self.training else 0
        return (2 * torch.rand(n, 3, device=points.device) - 1) * self.radius

    def _head_on_alpha(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Opacity of one step that meets the surface at a right angle."""
        sdf = self.geometry.sdf(points)
        slope, width = torch.full_like(sdf, -1.0), torch.ones_like(sdf) * self.march.step
        return self.opacity(sdf, slope, width, self.variance(), self.config.backend)

    def _make_background(self, config: "NeuS.Config") -> None:
        self.geometry_bg: VolumeDensity = geometries.make(config.geometry_bg, "sphere")
        self.texture_bg: VolumeRadiance = textures.make(config.texture_bg)
        self.occupancy_bg: Occupancy = Everywhere(self.geometry_bg.radius, "sphere")
        if config.grid_prune:
            self.occupancy_bg = MovingAverage(
                config.occupancy_bg, self.geometry_bg.radius, "sphere", config.grid_prune_occ_thre_bg
            )
        cone = cone_angle(FAR_BACKGROUND, config.num_samples_per_ray_bg)
        self.march_bg, self.kept_bg = March(STEP_BACKGROUND, cone, backend=config.backend), Capacity()

    def _background(self, rays: Rays, near: Float[Tensor, "R"], light: Float[Tensor, "R"]) -> Rendered:
        """What `light`, the share of each ray that the object lets through, meets from `near` on."""
        self.march_bg.is_jittered = self.training and self.config.randomized
        # A ray that arrives with less light than a sample needs to count ends at once.
        least = self.config.min_weight
        far = torch.where(light < least, near, FAR_BACKGROUND)
        samples = self.march_bg(rays, self.occupancy_bg, near, far)
        alpha = lambda points, samples: density_alpha(self.geometry_bg.density(points), samples.width)  # noqa: E731
        samples = self.kept_bg.keep(samples, visible(samples, rays, alpha, self.config.backend, light, least))
        return render_density(rays, samples, self.geometry_bg, self.texture_bg, self.config.backend)
