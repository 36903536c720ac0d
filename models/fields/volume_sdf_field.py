"""`volume-sdf-field`: a hash-grid distance where renderers of the Implicitron family ask."""

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


@implicit_functions.register("volume-sdf-field")
class VolumeSDFField(DistanceFunction):
    """Its gradient is the closed form, not autograd's. Outside the box the distance to the box is added."""

    @dataclass
    class Config:
        geometry: object = slot(geometries, default=VolumeSDF.Config)
        """The distance field; its feature_dim is 1 + model.render_features_dimensions."""

    def __init__(self, config: "VolumeSDFField.Config", sizes: Sizes):
        super().__init__()
        geometry = geometries.make(config.geometry, "box")
        if not isinstance(geometry, VolumeSDF):
            raise ConfigError("model.implicit_function.geometry.name: a distance is needed; choose volume-sdf")
        if geometry.n_features != 1 + sizes.n_channels:
            raise ConfigError(
                f"model.implicit_function.geometry.feature_dim is {geometry.n_features}, but the distance and the "
                f"{sizes.n_channels} channels of model.render_features_dimensions take {1 + sizes.n_channels}; set it "
                "to that"
            )
        if sizes.n_code:
            raise ConfigError("volume-sdf-field knows one scene; remove model.global_encoder or choose idr")
        self.geometry, self.isosurface = geometry, geometry.isosurface

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
        gradient = torch.where(away == 0, field.gradient, torch.zeros_like(away)) + unit(away)
        return field.sdf + away.norm(dim=-1), gradient, field.feature[:, 1:]

    def _nearest(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The closest points of the box."""
        radius = self.geometry.radius
        return points.clamp(-radius, radius)
