"""`volume-sdf`: the distance of hash-grid models, asked at single points."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models import geometries, implicit_functions
from models.fields.implicit import DistanceFunction, Sizes
from models.fields.sdf import VolumeSDF
from utils.config import slot
from utils.geometry import unit
from utils.registry import ConfigError
from utils.types import Context


@implicit_functions.register("volume-sdf")
class VolumeDistance(DistanceFunction):
    """The geometry of `model.name=neus` where surfaces are traced. Its gradient is the closed form, not autograd's.

    Outside the box of geometry.radius the distance is that of the closest point of the box, and to it.
    """

    @dataclass
    class Config:
        geometry: object = slot(geometries, default=VolumeSDF.Config)
        """The distance field; its feature_dim is 1 + model.render_features_dimensions."""

    def __init__(self, config: "VolumeDistance.Config", sizes: Sizes):
        super().__init__()
        where, n = "model.implicit_function", 1 + sizes.n_channels
        if sizes.n_code:
            raise ConfigError(f"{where}: volume-sdf takes no code; remove model.global_encoder or choose idr")
        self.geometry: VolumeSDF = geometries.make(config.geometry, "box")
        if not isinstance(self.geometry, VolumeSDF):
            raise ConfigError(f"{where}.geometry.name: expected a distance; choose volume-sdf")
        if self.geometry.n_features != n:
            raise ConfigError(
                f"{where}.geometry.feature_dim is {self.geometry.n_features}; expected {n}, the distance and "
                "model.render_features_dimensions"
            )
        self.isosurface = self.geometry.isosurface

    def update(self, step: int) -> None:
        self.geometry.update(step)

    def forward(
        self, points: Float[Tensor, "N 3"], context: Context
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N F"]]:
        sdf, _, feature = self.with_gradient(points, context)
        return sdf, feature

    def distance(self, points: Float[Tensor, "N 3"], context: Context) -> Float[Tensor, "N"]:
        nearest = self._nearest(points)
        return self.geometry.sdf(nearest) + (points - nearest).norm(dim=-1)

    def with_gradient(
        self, points: Float[Tensor, "N 3"], context: Context
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"], Float[Tensor, "N F"]]:
        nearest = self._nearest(points)
        away = points - nearest
        field = self.geometry(nearest)
        # Along an axis that leads out of the box, the field stays as it is and the distance to the box grows.
        gradient = torch.where(away == 0, field.gradient, torch.zeros_like(away)) + unit(away)
        return field.sdf + away.norm(dim=-1), gradient, field.feature[:, 1:]

    def _nearest(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The closest points of the box."""
        radius = self.geometry.radius
        return points.clamp(-radius, radius)
