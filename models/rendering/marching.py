"""Where along its rays a field is asked: marching through an occupancy grid."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models import ops
from models.ops.dispatch import Backend
from models.rendering.capacity import Capacity
from models.rendering.occupancy import Occupancy
from models.rendering.opacity import OpacityLaw
from utils.packing import fitting
from utils.types import Rays, Samples

# Behind this transmittance nothing can change a pixel's colour.
_OPAQUE = 1e-4


class March(nn.Module):
    """How rays are cut into intervals.

    Attributes:
        step: length of an interval, world units; a number, or a tensor that lies where the rays are.
        cone: growth of the interval with distance: at `t` it is max(step, cone * t).
        is_jittered: whether each ray starts at a random share of a step; otherwise it starts half a step in.
        backend: implementation of the march.
        capacity: room for samples while training on a GPU.
    """

    def __init__(self, step: float, cone: float = 0.0, is_jittered: bool = False, backend: Backend = "auto"):
        super().__init__()
        self.step: float | Tensor = step
        self.backend: Backend = backend
        self.cone, self.is_jittered = cone, is_jittered
        self.capacity = Capacity()

    def forward(
        self,
        rays: Rays,
        occupancy: Occupancy,
        near: Float[Tensor, "R"] | None = None,
        far: Float[Tensor, "R"] | None = None,
    ) -> Samples:
        """Intervals in cells that may hold something; a solid cell ends its ray.

        Args:
            near, far: [R] range of each ray; None where the box of the occupancy alone shall limit it.
        """
        n = len(rays)
        device = rays.origins.device
        near = torch.zeros(n, device=device) if near is None else near
        far = torch.full((n,), torch.inf, device=device) if far is None else far
        jitter = torch.rand(n, device=device) if self.is_jittered else torch.full((n,), 0.5, device=device)
        is_padded = self.training and ops.runs_ahead(self.backend, near)
        capacity = self.capacity.rows(n) if is_padded else None
        start, end, ray, offsets = ops.march(
            rays.origins,
            rays.directions,
            near,
            far,
            occupancy.cells,
            occupancy.contraction,
            occupancy.radius,
            self.step,
            self.cone,
            jitter,
            self.backend,
            occupancy.gaps,
            capacity,
        )
        whole = (offsets,) if capacity is None else fitting(offsets, capacity)
        samples = Samples(start, end, ray, *whole)
        if is_padded:
            self.capacity.note(samples)
        return samples


def box_range(rays: Rays, radius: float) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Where rays enter and leave the cube of half side `radius`; equal where they miss it."""
    near, far, hit = ops.ray_box(rays.origins, rays.directions, radius)
    return near, torch.where(hit, far, near)


def step_length(sharpness: Float[Tensor, ""], shortest: float, longest: float) -> float | Float[Tensor, ""]:
    """Length of intervals, world units, that suits the width of a surface; on a GPU it stays there.

    With 1.6 intervals across the logistic width 1 / sharpness the error of the linearised opacity stays small.
    """
    if ops.on_gpu(sharpness):
        return (0.625 / sharpness).clamp(shortest, longest)
    return min(longest, max(shortest, 0.625 / sharpness.item()))


def cone_angle(far: float, n_samples: int) -> float:
    """Growth of intervals with which `n_samples` of them, starting at distance 1, reach `far`."""
    return 10 ** (torch.log10(torch.tensor(far)).item() / n_samples) - 1


def visible(
    samples: Samples,
    rays: Rays,
    alpha: Callable[[Float[Tensor, "N 3"], Samples], Float[Tensor, "N"]],
    backend: Backend,
    light: Float[Tensor, "R"] | None = None,
    least: float = 0.0,
) -> Bool[Tensor, "N"]:
    """Which samples light can reach: those before the ray has become opaque.

    Args:
        light: [R] share of a ray's light that arrives at its first sample, in [0, 1]; all of it where not given.
        least: share of the light below which what a sample gives is left out as well; 0 keeps all that are reached.
    """
    with torch.no_grad():
        opacity = alpha(samples.points(rays), samples)
        ones = torch.ones(1, len(samples), device=opacity.device)
        weights, _ = ops.composite(opacity, ones, samples.offsets, backend=backend)
        if least > 0:
            return (weights if light is None else weights * light.index_select(0, samples.ray)) >= least
        # w = alpha * T, so T is known wherever alpha is not zero; clear samples before an opaque one stay.
        transmittance = weights / opacity.clamp_min(1e-12)
        return (transmittance >= _OPAQUE) | (opacity < 1e-12)


def contributing(
    samples: Samples,
    sdf: Float[Tensor, "N"],
    law: OpacityLaw,
    sharpness: Float[Tensor, ""],
    least: float,
    backend: Backend,
) -> Bool[Tensor, "N"]:
    """Which samples of a distance field give their ray at least the share `least` of its colour.

    Opacities come from differences of the distance between neighbours, so no gradient of the field is needed.

    Args:
        sdf: [N] distance at the midpoints, world units, without gradient.
        law, sharpness: what makes opacities of distances.
        least: weight below which a sample is left out.
    """
    if len(samples) == 0:
        return samples.ray >= 0
    t, ray = samples.t, samples.ray
    # Padding begins at distance 0 again.
    is_next = (ray[1:] == ray[:-1]) & (t[1:] > t[:-1])
    descent = torch.where(is_next, sdf.diff() / t.diff().abs().clamp_min(1e-9), -1.0)
    head_on = sdf.new_full((1,), -1.0)
    # The steeper side counts: an opacity that is told too large keeps a sample too many.
    slope = torch.minimum(torch.cat([head_on, descent]), torch.cat([descent, head_on])).clamp(-1, 0)
    alpha = law(sdf, slope, samples.width, sharpness, backend)
    weights, _ = ops.composite(alpha, sdf[None], samples.offsets, backend=backend)
    return weights >= least
