"""`sdf`: light comes from the first surface alone, which sphere tracing finds (Yariv et al. 2020, IDR)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models import renderers
from models.fields.implicit import DistanceFunction, ImplicitFunction, Sizes
from models.rendering.background import Background
from models.rendering.normal_color import NormalColor
from models.rendering.renderer import Renderer
from models.rendering.sphere_tracing import SphereTracer
from utils.config import check_least
from utils.geometry import unit
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays, Rendered

_PIECE = 1 << 16
"""Points at which a function is asked at once while rays are traced; more would only take memory."""


@renderers.register("sdf")
class SdfRenderer(Renderer):
    """Opaque surfaces, learnt from colours and masks.

    Colours are shown and taught where there is a hit, in training on the object's mask only. Elsewhere opacity is
    sigmoid(-alpha f) at the place where the distance f is smallest, which is how masks move the surface; also in views
    without any hit, which the published code calls opaque everywhere [D10].
    """

    @dataclass
    class Config:
        ray_tracer: SphereTracer.Config = field(default_factory=SphereTracer.Config)
        """How surfaces are found."""
        ray_normal_coloring_network: NormalColor.Config = field(default_factory=NormalColor.Config)
        """How they look."""
        bg_color: list[float] | None = None
        """Colour behind everything, one number or one per channel; null shows the backdrop of the ray."""
        soft_mask_alpha: float = 50.0
        """Sharpness of the opacity beside the surface, inverse world units."""

        def __post_init__(self) -> None:
            check_least(self, soft_mask_alpha=0)

    asks = DistanceFunction
    needs_mask = True
    quantities = frozenset({"gradient", "normal"})

    def __init__(self, config: "SdfRenderer.Config", sizes: Sizes, radius: float):
        super().__init__()
        self.alpha, self.n_steps, self.radius = config.soft_mask_alpha, config.ray_tracer.n_steps, radius
        self.tracer = SphereTracer(config.ray_tracer, radius)
        self.color = NormalColor(config.ray_normal_coloring_network, sizes)
        self.background = Background(config.bg_color, sizes, "model.renderer.bg_color")

    def forward(
        self, rays: Rays, points: RayPoints, functions: Sequence[ImplicitFunction], context: Context
    ) -> Rendered:
        (function,) = functions
        assert isinstance(function, DistanceFunction)
        if points.n_points > 0:
            raise ConfigError(
                f"model.ray_sampler gives {points.n_points} points a ray, which have no effect with the renderer sdf; "
                "set its n_pts_per_ray_training and n_pts_per_ray_evaluation to 0"
            )
        along = _Along(function, rays, context)
        return self._taught(along) if self.training else self._seen(along)

    def surface_color(
        self,
        points: Float[Tensor, "N 3"],
        normals: Float[Tensor, "N 3"],
        function: ImplicitFunction,
        context: Context,
    ) -> Float[Tensor, "N C"]:
        assert isinstance(function, DistanceFunction)
        _, gradient, feature = function.with_gradient(points, context)
        return self.color(points, gradient, -normals, feature)

    def _seen(self, along: "_Along") -> Rendered:
        """Evaluation."""
        trace = self.tracer.trace(along.rays, along)
        miss = (~trace.is_hit).nonzero()[:, 0]
        beside = torch.sigmoid(-self.alpha * along(miss, trace.t[miss, None])[:, 0])
        opacity = torch.ones_like(trace.t).index_put((miss,), beside)
        points = along.points(trace.t)
        return self._shown(along, trace.is_hit, trace.t, points[trace.is_hit], opacity)

    def _taught(self, along: "_Along") -> Rendered:
        """Training: all points follow the parameters of the field."""
        rays = along.rays
        assert rays.mask is not None
        is_object = rays.mask > 0.5
        trace = self.tracer.trace(rays, along, is_object)
        share = torch.rand(self.n_steps, device=rays.origins.device)
        t = self.tracer.deepest(rays, along, trace, is_object, share)

        points, n = along.points(t), len(rays)
        free = (2 * torch.rand(n // 2, 3, device=points.device) - 1) * self.radius
        row = torch.arange(n, device=points.device)
        sdf, gradient, _ = along.with_gradient(torch.cat([points, free]), torch.cat([row, row[: n // 2]]))
        is_hit = trace.is_hit & is_object
        opacity = torch.where(is_hit, torch.ones_like(t), torch.sigmoid(-self.alpha * sdf[:n]))
        surface = attached(points[is_hit], rays.directions[is_hit], sdf[:n][is_hit], gradient[:n][is_hit])
        rendered = self._shown(along, is_hit, t, surface, opacity)
        rendered.gradient = gradient
        return rendered

    def _shown(
        self,
        along: "_Along",
        is_hit: Bool[Tensor, "R"],
        t: Float[Tensor, "R"],
        surface: Float[Tensor, "H 3"],
        opacity: Float[Tensor, "R"],
    ) -> Rendered:
        rays, row = along.rays, is_hit.nonzero()[:, 0]
        _, gradient, feature = along.with_gradient(surface, row)
        seen = self.color(surface, gradient, rays.directions[row], feature)
        return Rendered(
            color=self.background(rays).index_put((row,), seen.float()),
            opacity=opacity,
            depth=torch.where(is_hit, t, torch.zeros_like(t)),
            normal=torch.zeros_like(rays.origins).index_put((row,), unit(gradient)),
            is_dense=True,
            n_samples=along.n_asked,
        )


def attached(
    points: Float[Tensor, "N 3"],
    directions: Float[Tensor, "N 3"],
    sdf: Float[Tensor, "N"],
    gradient: Float[Tensor, "N 3"],
) -> Float[Tensor, "N 3"]:
    """Surface points as functions of the field: the same places, which move along their rays as it changes.

    x = c + t v - v (f - f0) / (grad f0 . v), where f0 is f without gradient (IDR, eq. 3). Rays that graze the surface
    count as meeting it at a slope of 1e-4.

    Args:
        points: where rays meet the surface; constants.
        directions: unit, of these rays.
        sdf, gradient: of the field at the points; only the distance is differentiated.
    """
    slope = (gradient.detach() * directions).sum(-1)
    sign = torch.where(slope < 0, -torch.ones_like(slope), torch.ones_like(slope))
    moved = (sdf - sdf.detach()) / (sign * slope.abs().clamp_min(1e-4))
    return points - moved[:, None] * directions


class _Along:
    """A distance function along given rays, which counts the points that it is asked at."""

    def __init__(self, function: DistanceFunction, rays: Rays, context: Context):
        self.function, self.rays, self.context = function, rays, context
        self.n_asked = 0

    def points(self, t: Float[Tensor, "R"]) -> Float[Tensor, "R 3"]:
        """Where all rays are at distances `t`."""
        return torch.addcmul(self.rays.origins, self.rays.directions, t[:, None])

    def __call__(self, row: Int[Tensor, "K"], t: Float[Tensor, "K S"]) -> Float[Tensor, "K S"]:
        """Distances at places along rays, without gradient."""
        self.n_asked += t.numel()
        n = max(1, _PIECE // max(1, t.shape[1]))
        return torch.cat([self._piece(r, s) for r, s in zip(row.split(n), t.split(n), strict=True)])

    def with_gradient(
        self, points: Float[Tensor, "N 3"], row: Int[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"], Float[Tensor, "N F"]]:
        """Distance, gradient and feature at points, with the context of the rays in these rows."""
        self.n_asked += len(points)
        return self.function.with_gradient(points, self.context[row])

    @torch.no_grad()
    def _piece(self, row: Int[Tensor, "K"], t: Float[Tensor, "K S"]) -> Float[Tensor, "K S"]:
        origins, directions = self.rays.origins[row, None], self.rays.directions[row, None]
        points = torch.addcmul(origins, directions, t[..., None]).view(-1, 3)  # [K * S, 3]
        context = self.context[row.repeat_interleave(t.shape[1])]
        return self.function.distance(points, context).view_as(t)
