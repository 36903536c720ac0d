"""Sphere tracing: where rays meet the zero level of a signed distance (Yariv et al. 2020, IDR, supplementary 1.2).

A ray is marched from both ends of its way through the bounding sphere, by the distance each time (Hart 1996). Where
that does not end at a surface, evenly spread samples look for the first change of sign, and the secant method closes
in on it. The field is asked only where a ray is undecided, and in pieces.

The tracer does not know space: it asks for distances at places along rays.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Rays, Record

AlongRays = Callable[[Int[Tensor, "K"], Float[Tensor, "K S"]], Float[Tensor, "K S"]]
"""Signed distance at S places on each of K rays, told by row and distance from the origin."""


@dataclass
class Trace(Record):
    """Where R rays end.

    Attributes:
        t: [R] distance from the ray origin. On a ray without a hit, where the search ended.
        is_hit: [R] whether there is a surface.
        is_searched: [R] whether marching left the ray undecided, so that samples decided.
    """

    t: Float[Tensor, "R"]
    is_hit: Bool[Tensor, "R"]
    is_searched: Bool[Tensor, "R"]


class SphereTracer:
    """Finds the first surface within a sphere around the origin. Built as `SphereTracer(config, radius)`."""

    @dataclass
    class Config:
        sdf_threshold: float = 5e-5
        """Distance at which a point counts as on the surface, world units."""
        line_search_step: float = 0.5
        """Share of a step that is kept when it went through the surface; each further pull-back is half as long."""
        line_step_iters: int = 1
        """Most pull-backs of a step."""
        sphere_tracing_iters: int = 10
        """Most steps from either end."""
        n_steps: int = 100
        """Samples on rays that marching leaves undecided, and on those whose smallest distance is wanted."""
        n_secant_steps: int = 8
        """Steps of the secant method."""

        def __post_init__(self) -> None:
            check_least(self, sdf_threshold=0, line_step_iters=0, sphere_tracing_iters=0, n_steps=2, n_secant_steps=0)
            if not 0 <= self.line_search_step < 1:
                raise ConfigError(f"line_search_step is {self.line_search_step}; expected a share in [0, 1)")

    def __init__(self, config: "SphereTracer.Config", radius: float):
        self.config, self.radius = config, radius

    @torch.no_grad()
    def trace(self, rays: Rays, sdf: AlongRays, is_object: Bool[Tensor, "R"] | None = None) -> Trace:
        """The first surface on each ray.

        Args:
            rays: R of them.
            sdf: distances along these rays.
            is_object: [R] whether the photograph shows the object. A hit that samples find elsewhere is not refined;
                it is put where the distance is smallest. None in evaluation, which refines all.
        """
        near, far, crosses = sphere_range(rays, self.radius)
        start, end, is_searched = self._march(near, far, crosses, sdf)
        is_hit = start < end
        row = is_searched.nonzero()[:, 0]
        if len(row):
            wanted = torch.ones_like(row, dtype=torch.bool) if is_object is None else is_object[row]
            start[row], is_hit[row] = self._search(row, start[row], end[row], wanted, sdf)
        return Trace(start, is_hit, is_searched)

    @torch.no_grad()
    def deepest(
        self,
        rays: Rays,
        sdf: AlongRays,
        trace: Trace,
        is_object: Bool[Tensor, "R"],
        share: Float[Tensor, "S"],
    ) -> Float[Tensor, "R"]:
        """Where the mask teaches a ray: at the smallest distance on rays that miss the object or hit beside it.

        Args:
            rays, sdf: as traced.
            trace: what came of it.
            is_object: [R] whether the photograph shows the object.
            share: [S] places in [0, 1] of the way through the sphere that are looked at, the same on all rays.

        Returns:
            [R] distances from the ray origin: of the trace where it is right. Rays that pass by the sphere are taught
            at their point closest to its centre. Beside the object, the way begins at the hit.
        """
        near, far, crosses = sphere_range(rays, self.radius)
        is_taught = ~trace.is_searched & ~(trace.is_hit & is_object)
        t = torch.where(is_taught & ~crosses, -(rays.origins * rays.directions).sum(-1), trace.t)
        row = (is_taught & crosses).nonzero()[:, 0]
        if len(row):
            lower = torch.where(trace.is_hit, trace.t, near)[row, None]
            places = lower + share * (far[row, None] - lower)  # [K, S]
            t[row] = _at(places, sdf(row, places).argmin(dim=1))
        return t

    def _march(
        self, near: Float[Tensor, "R"], far: Float[Tensor, "R"], crosses: Bool[Tensor, "R"], sdf: AlongRays
    ) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"], Bool[Tensor, "R"]]:
        """Both ends after marching, and whether the near one is still on its way."""
        config, n = self.config, len(near)
        t = torch.cat([near, far])  # fronts: R that go forwards, then R that come back
        heading = torch.cat([torch.ones_like(near), -torch.ones_like(far)])
        front = crosses.repeat(2).nonzero()[:, 0]
        value = _single(sdf, front % n, t[front]) if len(front) else t[front]
        for _ in range(config.sphere_tracing_iters):
            is_moving = value > config.sdf_threshold
            front, value = front[is_moving], value[is_moving]
            if len(front) == 0:
                break
            t[front] += heading[front] * value
            value = self._pulled_back(front, value, t, heading, sdf)
            row = front % n
            is_apart = t[row] < t[row + n]
            front, value = front[is_apart], value[is_apart]
        is_open = torch.zeros_like(crosses)
        is_open[front[(value > config.sdf_threshold) & (front < n)]] = True
        return t[:n], t[n:], is_open

    def _pulled_back(
        self,
        front: Int[Tensor, "K"],
        step: Float[Tensor, "K"],
        t: Float[Tensor, "F"],
        heading: Float[Tensor, "F"],
        sdf: AlongRays,
    ) -> Float[Tensor, "K"]:
        """Distances at the fronts, of which those that went through the surface are pulled back, in `t` itself."""
        config, n = self.config, len(t) // 2
        value = _single(sdf, front % n, t[front])
        for k in range(config.line_step_iters):
            through = (value < 0).nonzero()[:, 0]
            if len(through) == 0:
                break
            back = front[through]
            t[back] -= heading[back] * ((1 - config.line_search_step) / 2**k) * step[through]
            value[through] = _single(sdf, back % n, t[back])
        return value

    def _search(
        self,
        row: Int[Tensor, "K"],
        start: Float[Tensor, "K"],
        end: Float[Tensor, "K"],
        is_wanted: Bool[Tensor, "K"],
        sdf: AlongRays,
    ) -> tuple[Float[Tensor, "K"], Bool[Tensor, "K"]]:
        """The first change of sign from start to end, and whether there is one; else the smallest distance.

        A change of sign that is not wanted is told, but the place is that of the smallest distance.
        """
        n = self.config.n_steps
        places = start[:, None] + torch.linspace(0, 1, n, device=start.device) * (end - start)[:, None]  # [K, S]
        value = sdf(row, places)
        # Signs fall from the first sample to the last, so that the first negative one is the smallest.
        first = (value.sign() * torch.arange(n, 0, -1, device=value.device)).argmin(dim=1)
        is_hit = _at(value, first) < 0
        t = _at(places, value.argmin(dim=1))
        found = (is_hit & is_wanted).nonzero()[:, 0]
        if len(found):
            high = first[found]
            low = (high - 1).clamp_min(0)
            place, level = places[found], value[found]
            bracket = (_at(place, low), _at(place, high), _at(level, low), _at(level, high))
            t[found] = self._secant(row[found], *bracket, sdf)
        return t, is_hit

    def _secant(
        self,
        row: Int[Tensor, "K"],
        low: Float[Tensor, "K"],
        high: Float[Tensor, "K"],
        sdf_low: Float[Tensor, "K"],
        sdf_high: Float[Tensor, "K"],
        sdf: AlongRays,
    ) -> Float[Tensor, "K"]:
        """Zero between a positive and a negative distance, by straight lines (regula falsi)."""
        t = _crossing(low, high, sdf_low, sdf_high)
        for _ in range(self.config.n_secant_steps):
            value = _single(sdf, row, t)
            low, sdf_low = torch.where(value > 0, t, low), torch.where(value > 0, value, sdf_low)
            high, sdf_high = torch.where(value < 0, t, high), torch.where(value < 0, value, sdf_high)
            t = _crossing(low, high, sdf_low, sdf_high)
        return t


def sphere_range(rays: Rays, radius: float) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"], Bool[Tensor, "R"]]:
    """Where lines enter and leave the sphere around the origin, 0 where that is behind, and whether they cross it.

    Both distances are 0 on lines that pass it by.
    """
    along = (rays.origins * rays.directions).sum(-1)
    squared = along.square() - (rays.origins.square().sum(-1) - radius**2)
    crosses = squared > 0
    half = squared.clamp_min(0).sqrt()
    zero = torch.zeros_like(along)
    near, far = ((-along + side * half).clamp_min(0) for side in (-1, 1))
    return torch.where(crosses, near, zero), torch.where(crosses, far, zero), crosses


def _crossing(low: Tensor, high: Tensor, sdf_low: Tensor, sdf_high: Tensor) -> Tensor:
    """Zero of the line through both; the low end where both are zero."""
    fall = sdf_low - sdf_high
    return low + sdf_low * (high - low) / torch.where(fall > 0, fall, torch.ones_like(fall))


def _single(sdf: AlongRays, row: Int[Tensor, "K"], t: Float[Tensor, "K"]) -> Float[Tensor, "K"]:
    """Distances at one place on each ray."""
    return sdf(row, t[:, None])[:, 0]


def _at(values: Float[Tensor, "K S"], column: Int[Tensor, "K"]) -> Float[Tensor, "K"]:
    return values.gather(1, column[:, None])[:, 0]
