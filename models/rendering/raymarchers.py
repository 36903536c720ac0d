"""Accumulation along rays of as many points each: emission and absorption, or a capped sum.

With interval lengths d_i, densities s_i and cap(x) = 1 - exp(-x) for emission and absorption, min(x, 1) for the sum
(Lombardi et al. 2019, Neural Volumes):

    c_i = cap(d_i s_i),   A_i = cap(sum_{j <= i} d_j s_j),   T_i = 1 - A_{i - k},   w_i = c_i T_i   or   min(c_i, T_i),

where k is the thickness of the surface in points. The last A is the opacity of the ray. Depth is sum_i w_i t_i, not
divided by the opacity.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import raymarchers
from models.fields.implicit import FieldOutput, Sizes
from models.rendering.background import Background
from utils.config import check_least
from utils.types import RayPoints, Rays, Rendered


@dataclass
class MarcherConfig:
    """Keys of both ray marchers; the length of the last interval is their own."""

    surface_thickness: int = 1
    """Points that a surface takes to hide what is behind it."""
    bg_color: list[float] | None = None
    """Colour behind everything, one number or one per channel; null shows the backdrop of the ray."""
    replicate_last_interval: bool = False
    """Whether the last interval is as long as the one before it."""
    background_opacity: float = 0.0
    """Length of the last interval otherwise, world units."""
    density_relu: bool = True
    """Whether negative densities count as 0."""
    blend_output: bool = False
    """Whether the accumulated colour is multiplied by the opacity once more."""

    def __post_init__(self) -> None:
        check_least(self, surface_thickness=1, background_opacity=0)


class RayMarcher(nn.Module, ABC):
    """Accumulates densities and colours. Built as `marcher(config, sizes)`."""

    def __init__(self, config: MarcherConfig, sizes: Sizes):
        super().__init__()
        self.config = config
        self.background = Background(config.bg_color, sizes, "model.renderer.raymarcher.bg_color")

    @abstractmethod
    def cap(self, amount: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        """Opacity of an amount of matter, length times density."""

    @abstractmethod
    def weigh(self, opacity: Float[Tensor, "R P"], transmittance: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        """Share of the ray's colour that a point gives."""

    def forward(
        self, rays: Rays, points: RayPoints, output: FieldOutput, noise: float = 0.0
    ) -> tuple[Rendered, Float[Tensor, "R P"]]:
        """What is seen, and the weights of the points.

        Args:
            noise: standard deviation of Gaussian noise on densities.
        """
        density = output.density
        if noise > 0:
            density = density + noise * torch.randn_like(density)
        if self.config.density_relu:
            density = torch.relu(density)
        amount = self._lengths(points) * density
        reached = self.cap(amount.cumsum(dim=1))
        opacity = reached[:, -1]
        k = self.config.surface_thickness
        transmittance = 1 - torch.nn.functional.pad(reached[:, :-k], (min(k, amount.shape[1]), 0))
        weights = self.weigh(self.cap(amount), transmittance)
        color = torch.einsum("rp,rpc->rc", weights, output.feature)
        if self.config.blend_output:
            color = opacity[:, None] * color
        return (
            Rendered(
                color=color + (1 - opacity[:, None]) * self.background(rays),
                opacity=opacity,
                depth=(weights * points.t).sum(dim=1),
                is_dense=True,
                n_samples=points.t.numel(),
            ),
            weights,
        )

    def _lengths(self, points: RayPoints) -> Float[Tensor, "R P"]:
        """Of the intervals: from a point to the next, or between the edges."""
        if points.edges is not None:
            return points.edges.diff(dim=1)
        between = points.t.diff(dim=1)
        if self.config.replicate_last_interval:
            return torch.cat([between, between[:, -1:]], dim=1)
        return torch.nn.functional.pad(between, (0, 1), value=self.config.background_opacity)


@raymarchers.register("emission-absorption")
class EmissionAbsorption(RayMarcher):
    """Light that a medium emits and absorbs (Max 1995)."""

    @dataclass
    class Config(MarcherConfig):
        background_opacity: float = 1e10
        """Length of the last interval, world units: whatever is there is opaque."""

    def cap(self, amount: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        return -torch.expm1(-amount)

    def weigh(self, opacity: Float[Tensor, "R P"], transmittance: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        return opacity * transmittance


@raymarchers.register("cumsum")
class CumulativeSum(RayMarcher):
    """Opacity that adds up until it is full (Lombardi et al. 2019, Neural Volumes)."""

    @dataclass
    class Config(MarcherConfig):
        pass

    def cap(self, amount: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        return amount.clamp_max(1)

    def weigh(self, opacity: Float[Tensor, "R P"], transmittance: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        return torch.minimum(opacity, transmittance)
