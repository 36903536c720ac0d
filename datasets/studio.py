"""Photographs of the knot: ray tracing, paint and light.

Everything is fixed, so that results stay comparable; nothing here is to be tuned. Arrays are coordinates first,
[3, N], because the tracer spends its time on operations per coordinate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import max_pool2d

from datasets import knot
from datasets.cameras import Cameras

CHUNK = 100_000
"""Rays traced at once: few enough for the cache of a core, many enough to hide the cost of calling torch."""
MIN_STEP = 0.004
"""Shortest step of the tracer; along a ray, it may miss bumps that are thinner than this."""
N_REFINEMENTS = 2

STRIPES_AROUND, STRIPES_ALONG = 34, 60
LOBES = ((0.98, 0.68, 0.22), (0.93, 0.38, 0.16), (0.72, 0.12, 0.26))
GROOVE, STRIPE, LIGHT = (0.30, 0.05, 0.10), (0.99, 0.93, 0.80), (1.0, 0.96, 0.88)
KEY_LIGHT, FILL_LIGHT = (0.5, -0.4, 0.77), (-0.6, 0.4, -0.7)
CONTACT = 0.12
"""Distance at which neighbouring strands begin to darken each other."""


@dataclass
class Photograph:
    """One view as the synthetic camera sees it, row by row.

    Attributes:
        color: [P, 3] straight colours.
        alpha: [P] share of the pixel that is covered.
        depth: [P] distance along the ray through the pixel's centre, 0 where it misses.
        normal: [P, 3] unit world normal there, 0 where it misses.
    """

    color: UInt8[Tensor, "P 3"]
    alpha: UInt8[Tensor, "P"]
    depth: Float[Tensor, "P"]
    normal: Float[Tensor, "P 3"]


def photograph(cameras: Cameras, view: int, places: Float[Tensor, "S 2"]) -> Photograph:
    """Renders one view.

    Args:
        cameras: outside the knot's bounding sphere.
        view: which of them.
        places: [S, 2] where in a pixel, in [0, 1], its S samples lie.
    """
    width, height = cameras.size[view].tolist()
    origin = cameras.pose[view, :, 3]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corner = torch.stack((columns, rows)).reshape(2, -1).float()  # [2, P]
    rays = _directions(cameras, view, corner + 0.5)
    depth = trace(origin, rays, *_box_span(origin, rays))
    normal = torch.zeros_like(rays)
    is_hit = depth.isfinite()
    normal[:, is_hit] = _normal(origin[:, None] + depth[is_hit] * rays[:, is_hit])

    # What a pixel shows lies between the depths around it, give or take what flat and what round parts of the knot
    # advance in the width of a pixel; where all rays miss, there is nothing.
    footprint = origin.norm() / cameras.focal[view, 0]
    around = depth.view(1, height, width)
    nearest = -max_pool2d(-around, 3, stride=1, padding=1).reshape(-1)
    farthest = max_pool2d(around.where(around.isfinite(), 0.0), 3, stride=1, padding=1).reshape(-1)
    color, alpha = torch.zeros(3, len(depth)), torch.zeros(len(depth))
    for pixels in nearest.isfinite().nonzero()[:, 0].split(max(CHUNK // len(places), 1)):
        samples = corner[:, pixels, None] + places.T[:, None, :]
        rays = _directions(cameras, view, samples.reshape(2, -1))
        span = torch.stack((nearest[pixels] - footprint, farthest[pixels] + torch.sqrt(footprint)))
        t = trace(origin, rays, *span.repeat_interleave(len(places), dim=1))
        color[:, pixels], alpha[pixels] = _average(origin, rays, t, len(places))
    return Photograph(
        color=(255 * color).round().byte().T.contiguous(),
        alpha=(255 * alpha).round().byte(),
        depth=depth.where(depth.isfinite(), 0.0),
        normal=normal.T.contiguous(),
    )


def trace(
    origin: Float[Tensor, "3"], directions: Float[Tensor, "3 N"], start: Float[Tensor, "N"], stop: Float[Tensor, "N"]
) -> Float[Tensor, "N"]:
    """Distances at which rays first meet the knot, infinite where they pass it.

    Sphere tracing (Hart 1996) with a shortest step, then false position once the sign has changed.

    Args:
        origin: [3] common to all rays.
        directions: [3, N] unit vectors.
        start, stop: [N] distances between which to search; rays whose stop is not behind their start miss.
    """

    def value(t: Tensor, directions: Tensor) -> Tensor:
        return knot.clearance(origin[:, None] + t * directions)

    ray = (start < stop).nonzero()[:, 0]
    rays, t, stop = directions[:, ray], start[ray], stop[ray]
    bracket = torch.full((4, len(start)), math.inf)  # t and value before the surface, t and value behind it
    before = value(t, rays)
    while len(ray):
        step = torch.clamp(before, min=MIN_STEP)
        t_next = t + step
        behind = value(t_next, rays)
        crossed = (behind <= 0).nonzero()[:, 0]
        bracket[:, ray[crossed]] = torch.stack((t, before, t_next, behind)).index_select(1, crossed)
        going = ((behind > 0) & (t_next < stop)).nonzero()[:, 0]
        ray, rays, t, before, stop = (part.index_select(-1, going) for part in (ray, rays, t_next, behind, stop))

    hit = bracket[0].isfinite().nonzero()[:, 0]
    bracket[0, hit] = _false_position(lambda t: value(t, directions[:, hit]), *bracket[:, hit])
    return bracket[0]


def paint(points: Float[Tensor, "3 N"], at: knot.RopeCoordinates) -> Float[Tensor, "3 N"]:
    """Albedo: a colour per lobe of the trefoil, dark grooves in the weave, fine light stripes across it."""
    angle = 2 * math.pi / 3 * torch.arange(3)
    lobes = torch.stack((angle.cos(), angle.sin()), dim=1)
    share = (1 + lobes @ (points[:2] / at.rho)) ** 2 / 4.5  # [3, N], sums to 1
    albedo = torch.tensor(LOBES).T @ share
    albedo = torch.lerp(albedo, _column(GROOVE), 0.25 * (1 - knot.relief(at.around, at.along)))
    stripe = torch.sin(STRIPES_AROUND * at.around + STRIPES_ALONG * at.along) > 0.5
    return torch.lerp(albedo, _column(STRIPE), 0.7 * stripe * (0.5 + 0.5 * at.cos))


def shade(points: Float[Tensor, "3 N"], directions: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
    """Colours in [0, 1] of points of the surface seen along `directions`: diffuse light, a highlight (Blinn 1977)."""
    at = knot.rope_coordinates(points)
    normal = _unit(knot.gradient(points, at))
    openness = (knot.signed_distance(points + CONTACT * normal) / CONTACT).clamp(0.25, 1)
    key, fill = (_unit(_column(light)) for light in (KEY_LIGHT, FILL_LIGHT))
    diffuse = 0.72 * (normal * key).sum(0).clamp(min=0) + 0.4 * (normal * fill).sum(0).clamp(min=0)
    ambient = (0.42 + 0.06 * normal[2]) * openness
    highlight = (normal * _unit(key - directions)).sum(0).clamp(min=0) ** 40
    return (paint(points, at) * (ambient + diffuse) + 0.3 * highlight * _column(LIGHT)).clamp(0, 1)


def _false_position(
    value: Callable[[Tensor], Tensor], t_low: Tensor, low: Tensor, t_high: Tensor, high: Tensor
) -> Tensor:
    """Roots between `t_low`, where the value is `low` > 0, and `t_high`, where it is `high` <= 0."""
    for _ in range(N_REFINEMENTS):
        t = t_low + (t_high - t_low) * low / (low - high)
        middle = value(t)
        is_low = middle > 0
        t_low, low = torch.where(is_low, t, t_low), torch.where(is_low, middle, low)
        t_high, high = torch.where(is_low, t_high, t), torch.where(is_low, high, middle)
    return t_low + (t_high - t_low) * low / (low - high)


def _box_span(
    origin: Float[Tensor, "3"], directions: Float[Tensor, "3 N"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Where rays enter and leave the knot's bounding box; the span is empty for those that pass it."""
    box = torch.tensor(knot.BOX)[:, None]
    one, other = ((side * box - origin[:, None]) / directions for side in (-1, 1))
    return torch.minimum(one, other).amax(0), torch.maximum(one, other).amin(0)


def _directions(cameras: Cameras, view: int, places: Float[Tensor, "2 N"]) -> Float[Tensor, "3 N"]:
    """Unit world directions of rays through places in an image, in pixels from its upper left corner."""
    right, down = (places - cameras.center[view][:, None]) / cameras.focal[view][:, None]
    return _unit(cameras.pose[view, :, :3] @ torch.stack((right, -down, -torch.ones_like(right))))


def _normal(points: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
    return _unit(knot.gradient(points, knot.rope_coordinates(points)))


def _average(
    origin: Float[Tensor, "3"], rays: Float[Tensor, "3 N"], depth: Float[Tensor, "N"], n_samples: int
) -> tuple[Float[Tensor, "3 P"], Float[Tensor, "P"]]:
    """Mean colour of the samples of a pixel that hit, and the share of them that did."""
    is_hit = depth.isfinite()
    color = torch.zeros_like(rays)
    color[:, is_hit] = shade(origin[:, None] + depth[is_hit] * rays[:, is_hit], rays[:, is_hit])
    share = is_hit.view(-1, n_samples).float().mean(-1)  # [P]
    mean = color.view(3, -1, n_samples).mean(-1)  # [3, P]
    return mean / share.clamp(min=1e-6), share


def _column(values: tuple[float, float, float]) -> Float[Tensor, "3 1"]:
    return torch.tensor(values)[:, None]


def _unit(vectors: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
    # torch's norm over the first of two axes takes ten times as long.
    x, y, z = vectors
    return vectors * torch.rsqrt(x * x + y * y + z * z)
