"""Implicit functions: what renderers of the Implicitron family ask.

A renderer asks one of three kinds of questions, so there are three kinds of functions:

* `RadianceFunction`: density and colour of the points of whole rays,
* `DistanceFunction`: signed distance of single points,
* `LatentFunction`: a feature of the points of whole rays, and the pixel that a feature shows.

All are built as `function(config, sizes)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.fields.isosurface import IsosurfaceConfig
from utils.types import Context, RayPoints, Rays, Record


@dataclass(frozen=True)
class Sizes:
    """Lengths of the vectors that a model and its functions pass to each other.

    Attributes:
        n_channels: of rendered colour.
        n_code: of the global code, 0 without an encoder.
        n_pooled: of what is pooled at a point from a photograph, 0 without source views.
    """

    n_channels: int = 3
    n_code: int = 0
    n_pooled: int = 0


@dataclass
class FieldOutput(Record):
    """What a function says at the P points of R rays.

    Attributes:
        density: [R, P] raw density, inverse world units; what is negative counts as empty.
        feature: [R, P, C] colour, or whatever else is accumulated along the ray.
    """

    density: Float[Tensor, "R P"]
    feature: Float[Tensor, "R P C"]


class ImplicitFunction(nn.Module, ABC):
    """A learnt function of space.

    Attributes:
        isosurface: how the function is meshed, or None if it has no surface.
        is_distance: whether `level` is a signed distance in world units.
        quantities: what it can give to losses in training.
    """

    isosurface: IsosurfaceConfig | None = None
    is_distance: bool = False
    quantities: frozenset[str] = frozenset()

    def update(self, step: int) -> None:
        """Called before every step with its number; schedules live here."""

    def arrange(self, step: int) -> Sequence[nn.Parameter]:
        """Called before every training step: parameters may get another meaning then, such as a finer resolution.

        Returns:
            Those that did; what an optimiser remembers of them is of no use any more.
        """
        return ()

    def density_at_vertices(self) -> Float[Tensor, "F X Y Z"]:
        """Densities of its grid, not negative; asked only where `quantities` has `density_grid`."""
        raise NotImplementedError(f"{type(self).__name__} has no grid of densities")

    @abstractmethod
    def level(self, points: Float[Tensor, "N 3"], context: Context) -> Float[Tensor, "N"]:
        """Negative inside the surface that is meshed, zero on it; asked only where `isosurface` is not None."""


class RadianceFunction(ImplicitFunction):
    """Density and colour of space."""

    @abstractmethod
    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        """What is at the points, seen along their rays."""

    def level(self, points: Float[Tensor, "N 3"], context: Context) -> Float[Tensor, "N"]:
        """Negative where denser than the isosurface's threshold."""
        assert self.isosurface is not None
        context = replace(context, only_dense=True)
        return self.isosurface.threshold - self.at(points, torch.zeros_like(points), context).density[:, 0]

    def at(self, points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"], context: Context) -> FieldOutput:
        """What is at free points, each seen along a ray of its own that ends there."""
        ends = RayPoints(t=points.new_zeros(len(points), 1), edges=points.new_zeros(len(points), 2))
        return self(rays_to(points, directions), ends, context)


class DistanceFunction(ImplicitFunction):
    """Signed distance to a surface, with a feature of what is there for the network that colours it."""

    is_distance = True

    @abstractmethod
    def forward(
        self, points: Float[Tensor, "N 3"], context: Context
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N F"]]:
        """Distance, world units, negative inside, and feature at world points; F is `sizes.n_channels`.

        Twice differentiable by the points.
        """

    def distance(self, points: Float[Tensor, "N 3"], context: Context) -> Float[Tensor, "N"]:
        """Distance alone."""
        return self(points, context)[0]

    def with_gradient(
        self, points: Float[Tensor, "N 3"], context: Context
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"], Float[Tensor, "N F"]]:
        """Distance, its gradient by world position and feature; all differentiable where gradients are enabled."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points if points.requires_grad else points.detach().requires_grad_()
            sdf, feature = self(points, context)
            (gradient,) = torch.autograd.grad(sdf.sum(), points, create_graph=keep)
        return (sdf, gradient, feature) if keep else (sdf.detach(), gradient, feature.detach())

    def level(self, points: Float[Tensor, "N 3"], context: Context) -> Float[Tensor, "N"]:
        """Negative inside the surface at the isosurface's threshold, a distance."""
        assert self.isosurface is not None
        return self.distance(points, context) - self.isosurface.threshold


class LatentFunction(ImplicitFunction):
    """A latent feature of space that a renderer marches by, and the network that shows it. It has no surface.

    Attributes:
        n_features: length of the feature.
    """

    n_features: int

    @abstractmethod
    def forward(self, rays: Rays, context: Context) -> Callable[[RayPoints], Float[Tensor, "R P F"]]:
        """The function along these rays: asked with points, it gives their features.

        What does not depend on the points is computed here, once for all steps of a march.
        """

    @abstractmethod
    def pixel(self, rays: Rays, feature: Float[Tensor, "R F"]) -> tuple[Float[Tensor, "R"], Float[Tensor, "R C"]]:
        """Logit of the opacity, and colour, of what rays see where they end."""

    def level(self, points: Float[Tensor, "N 3"], context: Context) -> Float[Tensor, "N"]:
        raise NotImplementedError(f"{type(self).__name__} has no surface")


def rays_to(points: Float[Tensor, "N 3"], directions: Float[Tensor, "N 3"]) -> Rays:
    """Rays of no length that end at world points, of the first scene and time."""
    zero = points.new_zeros(len(points))
    row = zero.long()
    return Rays(
        points, directions, points.new_zeros(len(points), 3), row, row[:, None].expand(-1, 2), None, row, zero, zero
    )
