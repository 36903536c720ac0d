"""Where along its ray a function is asked first: points between two distances.

Numbers such as [D5] are those of the list of differences in docs/implicitron.md.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import ray_samplers
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import RayPoints, Rays


@dataclass
class SamplerConfig:
    """Keys of every ray sampler."""

    n_pts_per_ray_training: int = 64
    """Points on a ray while training; 0 for renderers that find their points themselves."""
    n_pts_per_ray_evaluation: int = 64
    """Points on a ray in evaluation."""
    stratified_point_sampling_training: bool = True
    """Whether each point is drawn anew between the midpoints to its neighbours while training."""
    stratified_point_sampling_evaluation: bool = False
    """Whether it is in evaluation."""
    cast_ray_bundle_as_cone: bool = False
    """Whether points have the extent of the pixel's cone, which integrated positional encoding needs."""

    def __post_init__(self) -> None:
        check_least(self, n_pts_per_ray_training=0, n_pts_per_ray_evaluation=0)


class RaySampler(nn.Module, ABC):
    """Spreads points evenly over part of each ray. Built as `sampler(config, radius)`, of the model's box."""

    def __init__(self, config: SamplerConfig, radius: float):
        super().__init__()
        self.config, self.radius = config, radius

    @abstractmethod
    def span(self, rays: Rays) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
        """Nearest and farthest distance along each ray, world units."""

    def forward(self, rays: Rays) -> RayPoints:
        config = self.config
        n = config.n_pts_per_ray_training if self.training else config.n_pts_per_ray_evaluation
        is_stratified = (
            config.stratified_point_sampling_training if self.training else config.stratified_point_sampling_evaluation
        )
        near, far = self.span(rays)
        share = torch.linspace(0, 1, n + config.cast_ray_bundle_as_cone, device=near.device)
        t = torch.lerp(near[:, None], far[:, None], share)  # [R, P]
        if is_stratified:
            t = stratified(t)
        if config.cast_ray_bundle_as_cone:
            return RayPoints(0.5 * (t[:, 1:] + t[:, :-1]), t)
        return RayPoints(t)


@ray_samplers.register("near-far")
class NearFar(RaySampler):
    """Points between the same two distances on every ray."""

    @dataclass
    class Config(SamplerConfig):
        min_depth: float = 0.1
        """Distance of the first point, world units."""
        max_depth: float = 8.0
        """Distance of the last point, world units."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.max_depth < self.min_depth:
                raise ConfigError(f"max_depth is {self.max_depth}; expected min_depth = {self.min_depth} or more")

    def __init__(self, config: "NearFar.Config", radius: float):
        super().__init__(config, radius)
        self.config: NearFar.Config = config

    def span(self, rays: Rays) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
        one = torch.ones_like(rays.origins[:, 0])
        return self.config.min_depth * one, self.config.max_depth * one


@ray_samplers.register("adaptive")
class Adaptive(RaySampler):
    """Points over the depth that a ball around the scene has, seen from the camera of each ray.

    A camera at distance d from the centre of the ball of radius e gets [d - e, d + e]; one inside the ball begins just
    before itself. (The published sampler takes the range of the first camera for all [D5].)
    """

    @dataclass
    class Config(SamplerConfig):
        scene_extent: float | None = None
        """Radius of the ball, world units; null takes model.radius."""
        scene_center: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
        """Centre of the ball, world coordinates."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.scene_extent is not None and self.scene_extent <= 0:
                raise ConfigError(f"scene_extent is {self.scene_extent}; expected more than 0")
            if len(self.scene_center) != 3:
                raise ConfigError(f"scene_center is {self.scene_center}; expected three coordinates")

    def __init__(self, config: "Adaptive.Config", radius: float):
        super().__init__(config, radius)
        self.extent = radius if config.scene_extent is None else config.scene_extent
        self.register_buffer("center", torch.tensor(config.scene_center), persistent=False)
        self.center: Tensor

    def span(self, rays: Rays) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
        away = (rays.origins - self.center).square().sum(-1).clamp_min(1e-3).sqrt()
        away = away.clamp_min(self.extent + 1e-3)
        return away - self.extent, away + self.extent


def stratified(t: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
    """Each distance drawn anew, evenly between the midpoints to its neighbours; the ends of the ray stay its ends."""
    middle = 0.5 * (t[:, 1:] + t[:, :-1])
    lower, upper = torch.cat([t[:, :1], middle], dim=1), torch.cat([middle, t[:, -1:]], dim=1)
    return torch.lerp(lower, upper, torch.rand_like(t))
