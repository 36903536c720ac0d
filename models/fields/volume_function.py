"""`volume-density`: the density and texture of hash-grid models, asked along whole rays."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from models import geometries, implicit_functions, textures
from models.fields.density import VolumeDensity
from models.fields.implicit import FieldOutput, RadianceFunction, Sizes
from models.fields.radiance import VolumeRadiance, check_width
from utils.config import slot
from utils.contraction import Contraction
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays


@implicit_functions.register("volume-density")
class VolumeFunction(RadianceFunction):
    """The field of `model.name=nerf` where every renderer of density and colour can ask it."""

    @dataclass
    class Config:
        geometry: object = slot(geometries, default=VolumeDensity.Config)
        """The density field."""
        texture: object = slot(textures, default=VolumeRadiance.Config)
        """The colour."""
        contraction: Contraction = "box"
        """Whether space is empty beyond the box of geometry.radius, or pulled into it."""

    def __init__(self, config: "VolumeFunction.Config", sizes: Sizes):
        super().__init__()
        where = "model.implicit_function"
        if sizes.n_channels != 3:
            raise ConfigError(f"{where}: volume-density has colours; set model.render_features_dimensions=3")
        if sizes.n_code:
            raise ConfigError(f"{where}: volume-density takes no code; remove model.global_encoder or choose nerf-mlp")
        self.is_bounded = config.contraction == "box"
        self.geometry: VolumeDensity = geometries.make(config.geometry, config.contraction)
        if not isinstance(self.geometry, VolumeDensity):
            raise ConfigError(f"{where}.geometry.name: expected a density; choose volume-density")
        self.texture: VolumeRadiance = textures.make(config.texture)
        check_width(f"{where}.texture", self.texture, self.geometry.n_features, f"{where}.geometry.feature_dim")
        self.isosurface = self.geometry.isosurface

    def update(self, step: int) -> None:
        self.geometry.update(step)
        self.texture.update(step)

    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        shape = points.t.shape
        places = points.positions(rays).flatten(0, 1)
        radius = self.geometry.radius
        density, feature = self.geometry(places.clamp(-radius, radius) if self.is_bounded else places)
        if self.is_bounded:
            density = density * (places.abs().amax(-1) <= radius)
        color = self.texture(feature, rays.directions.repeat_interleave(shape[1], dim=0))
        return FieldOutput(density.view(shape), color.view(*shape, 3))

    def level(self, points: Float[Tensor, "N 3"], context: Context) -> Float[Tensor, "N"]:
        return self.geometry.level(points)
