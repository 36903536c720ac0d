"""Photographs of the knot: ray tracing, paint and light.

Everything is fixed, so that results stay comparable; nothing here is to be tuned. Arrays are coordinates first,
[3, N], and small enough for a core's cache; torch runs such small operations on the calling thread, so views are
rendered side by side by a pool of threads.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from datasets import knot
from datasets.cameras import Cameras

CHUNK = 30_000
MIN_STEP = 0.004
"""Shortest step of the tracer; along a ray, it may miss bumps that are thinner than this."""
HEADROOM = 0.03
"""How far before the nearest hit of the surrounding pixels the rays inside a pixel start."""
N_REFINEMENTS = 3

STRIPES_AROUND, STRIPES_ALONG = 32, 60
LOBES = ((0.93, 0.64, 0.22), (0.86, 0.36, 0.17), (0.62, 0.13, 0.22))
GROOVE, STRIPE, LIGHT = (0.30, 0.05, 0.10), (0.99, 0.93, 0.80), (1.0, 0.96, 0.88)
KEY_LIGHT, FILL_LIGHT = (0.5, -0.4, 0.77), (-0.73, 0.62, -0.28)
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

    distance = origin.norm()
    start = (distance - knot.RADIUS).expand(CHUNK)
    center_rays = [_directions(cameras, view, chunk + 0.5) for chunk in corner.split(CHUNK, dim=1)]
    depth = torch.cat([trace(origin, rays, start[: rays.shape[1]]) for rays in center_rays])
    normal = torch.cat(
        [_normals(origin, rays, t) for rays, t in zip(center_rays, depth.split(CHUNK), strict=True)], dim=1
    )

    nearest = -max_pool2d(-depth.view(1, height, width), 3, stride=1, padding=1).reshape(-1)
    seen = nearest.isfinite().nonzero()[:, 0]
    color, alpha = torch.zeros(3, corner.shape[1]), torch.zeros(corner.shape[1])
    for pixels in seen.split(max(CHUNK // len(places), 1)):
        samples = corner[:, pixels, None] + places.T[:, None, :]
        rays = _directions(cameras, view, samples.reshape(2, -1))
        t = trace(origin, rays, (nearest[pixels] - HEADROOM).repeat_interleave(len(places)))
        color[:, pixels], alpha[pixels] = _average(origin, rays, t, len(places))
    return Photograph(
        color=(255 * color).round().byte().T.contiguous(),
        alpha=(255 * alpha).round().byte(),
        depth=depth.where(depth.isfinite(), 0.0),
        normal=normal.T.contiguous(),
    )


def trace(
    origin: Float[Tensor, "3"], directions: Float[Tensor, "3 N"], start: Float[Tensor, "N"]
) -> Float[Tensor, "N"]:
    """Distances at which rays first meet the knot, infinite where they pass it.

    Sphere tracing (Hart 1996) with a shortest step, and false position once the sign has changed.

    Args:
        origin: [3] common to all rays.
        directions: [3, N] unit vectors.
        start: [N] distances, outside the knot, before which nothing is hit.
    """

    def value(t: Tensor, directions: Tensor) -> Tensor:
        return knot.signed_distance(origin[:, None] + t * directions)

    far = (origin.norm() + knot.RADIUS).item()
    bracket = torch.full((4, len(start)), math.inf)  # t and value before the surface, t and value behind it
    ray, t, rays = torch.arange(len(start)), start, directions
    before = value(t, rays)
    while len(ray):
        t_next = t + torch.clamp(knot.SAFE_STEP * before, min=MIN_STEP)
        behind = value(t_next, rays)
        crossed = behind <= 0
        bracket[:, ray[crossed]] = torch.stack((t, before, t_next, behind))[:, crossed]
        going = (~crossed & (t_next < far)).nonzero()[:, 0]
        ray, t, rays, before = ray[going], t_next[going], rays[:, going], behind[going]

    is_hit = bracket[0].isfinite()
    rays = directions[:, is_hit]
    t_low, low, t_high, high = bracket[:, is_hit]
    for _ in range(N_REFINEMENTS):
        t = t_low + (t_high - t_low) * low / (low - high)
        middle = value(t, rays)
        t_low, low = torch.where(middle > 0, t, t_low), torch.where(middle > 0, middle, low)
        t_high, high = torch.where(middle > 0, t_high, t), torch.where(middle > 0, high, middle)
    depth = bracket[0]
    depth[is_hit] = t_low + (t_high - t_low) * low / (low - high)
    return depth


def paint(points: Float[Tensor, "3 N"], at: knot.RopeCoordinates) -> Float[Tensor, "3 N"]:
    """Albedo: a colour per lobe of the trefoil, dark grooves in the weave, fine light stripes across it."""
    angle = torch.atan2(points[1], points[0])
    share = torch.stack([(1 + torch.cos(angle - i * 2 * math.pi / 3)) / 3 for i in range(3)])  # [3, N], sums to 1
    albedo = torch.tensor(LOBES).T @ share
    albedo = torch.lerp(albedo, _column(GROOVE), 0.3 * (1 - knot.relief(at.around, at.along)))
    stripe = torch.sin(STRIPES_AROUND * at.around + STRIPES_ALONG * at.along) > 0.5
    return torch.lerp(albedo, _column(STRIPE), 0.7 * stripe * (0.5 + 0.5 * at.cos))


def shade(points: Float[Tensor, "3 N"], directions: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
    """Colours in [0, 1] of points of the surface seen along `directions`: diffuse light and a highlight (Blinn 1977)."""
    at = knot.rope_coordinates(points)
    normal = normalize(knot.gradient(points, at), dim=0)
    openness = (knot.signed_distance(points + CONTACT * normal) / CONTACT).clamp(0.25, 1)
    key, fill = (normalize(_column(light), dim=0) for light in (KEY_LIGHT, FILL_LIGHT))
    diffuse = 0.7 * (normal * key).sum(0).clamp(min=0) + 0.2 * (normal * fill).sum(0).clamp(min=0)
    ambient = (0.36 + 0.1 * normal[2]) * openness
    highlight = (normal * normalize(key - directions, dim=0)).sum(0).clamp(min=0) ** 40
    return (paint(points, at) * (ambient + diffuse) + 0.3 * highlight * _column(LIGHT)).clamp(0, 1)


def _directions(cameras: Cameras, view: int, places: Float[Tensor, "2 N"]) -> Float[Tensor, "3 N"]:
    """Unit world directions of rays through places in an image, in pixels from its upper left corner."""
    right, down = (places - cameras.center[view][:, None]) / cameras.focal[view][:, None]
    return normalize(cameras.pose[view, :, :3] @ torch.stack((right, -down, -torch.ones_like(right))), dim=0)


def _normals(origin: Float[Tensor, "3"], rays: Float[Tensor, "3 N"], depth: Float[Tensor, "N"]) -> Float[Tensor, "3 N"]:
    normal = torch.zeros_like(rays)
    is_hit = depth.isfinite()
    points = origin[:, None] + depth[is_hit] * rays[:, is_hit]
    normal[:, is_hit] = normalize(knot.gradient(points, knot.rope_coordinates(points)), dim=0)
    return normal


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
