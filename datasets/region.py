"""The region of interest: a ball around what the photographer walked around.

Where the data set tells it, it is believed. Else masks say best where the object is; without them, the sparse points
that most cameras look at; without points, the largest ball that most cameras see whole, or, where all cameras look the
same way and it is known how deep they see, one that begins at the nearest depth. What is found turns, moves and grows
with the input.
"""

import math

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from datasets.cameras import Cameras
from datasets.views import Views
from utils.notice import notice

ORDINARY_TANGENT = 0.35
"""Half the shorter side of an image over the focal length: between a phone and a portrait lens."""
WIDEST = math.radians(75)
"""Half the field of view that counts at most: what a fisheye sees beyond is not what it was aimed at."""
PRIOR_WEIGHT = 1e-6
"""What a point in front of the cameras counts for against their optical axes, where those are parallel."""

ROOM = 2.0
"""Where only cameras are known: objects reach this much farther than the largest ball that most cameras see whole."""
NEAR = 1.5
"""Sparse points farther out than this, in radii of that ball, are background."""
MOST = 0.75
"""Share of the cameras that see a part of the object, be it a sparse point or a place that masks show."""
STRAYS = 0.03
"""Share of the sparse points that are left outside."""
MARGIN = 1.1
"""Objects reach beyond their sparse points."""
SMALLEST = 0.5
"""No object is smaller, in radii of the ball that most cameras see whole: only part of it carries points."""
FEWEST_POINTS, MOST_POINTS = 30, 10_000
"""Fewer sparse points say nothing; of more, an even choice says the same."""

SAME_WAY = 0.8
"""Length of the mean of the optical axes from which on cameras look the same way."""
LARGEST_SHARE = 0.8
"""Radius over distance from the cameras that a ball in front of them has at most."""

N_MASKS = 32
"""Views whose masks are looked at; more hardly shrink the hull."""
N_VOXELS = 64
"""Along an edge of the grid that finds the object, and of the one that measures it."""
DISSENT = 0.1
"""Share of the masks that may miss a part of the object."""


def region_of_interest(views: Views) -> tuple[Float64[Tensor, "3"], float]:
    """Centre and radius, in the coordinates of the views' cameras.

    Args:
        views: at least one; masks (`alpha`) count first, then `points`, then `bounds` and the frusta of the cameras.
            Of several scenes the frusta alone count, and the region holds that of each.
    """
    if views.fills_unit_ball:
        return torch.zeros(3, dtype=torch.float64), 1.0
    poses, tangent = views.cameras.pose.double(), _tangent(views.cameras)
    if views.scene is not None:
        scenes = [views.scene == row for row in views.scene.unique()]
        return ball_around([region_in_sight(poses[rows], None, tangent[rows]) for rows in scenes])
    points = None if views.points is None else views.points.position.double()
    region = region_in_sight(poses, points, tangent, views.bounds)
    if views.alpha is None:
        return region
    hull = _visual_hull(views, *region)
    if hull is None:
        notice("masks: there is no place that they agree to be object; the region of interest goes without them")
        return region
    return hull


def region_in_sight(
    poses: Float64[Tensor, "V 3 4"],
    points: Float64[Tensor, "M 3"] | None = None,
    tangent: Float[Tensor, "V 2"] | None = None,
    bounds: Float[Tensor, "V 2"] | None = None,
) -> tuple[Float64[Tensor, "3"], float]:
    """Centre and radius from cameras and sparse points alone, before any photograph is read.

    Args:
        poses: [V, 3, 4] camera to dataset, OpenGL, rigid.
        points: [M, 3] sparse points, dataset coordinates, or None without any.
        tangent: [V, 2] half the width and half the height of the images over the focal lengths; None takes the view
            of an ordinary lens.
        bounds: [V, 2] depths between which photographs show things, dataset units; they count where there are no
            points and all cameras look the same way.
    """
    tangent = poses.new_full((len(poses), 2), ORDINARY_TANGENT) if tangent is None else tangent.to(poses)
    forward = common_direction(poses)
    if points is None and bounds is not None and forward is not None:
        return _ball_ahead(poses, forward, tangent, bounds.to(poses))
    center = lookat_point(poses)
    distance = (center - poses[:, :, 3]).norm(dim=1).median()
    # It must neither vanish where cameras look past the centre, nor swallow cameras with a wide view.
    seen_whole = _clearance(poses, tangent, center).median().clamp(0.1 * distance, 0.4 * distance)
    around = None if points is None else _points_around(center, NEAR * seen_whole, poses, tangent, points)
    if around is None:
        return center, float(ROOM * seen_whole)
    away = (around - around.mean(0)).norm(dim=1)
    center, reach = _smallest_ball(around[away <= away.quantile(1 - STRAYS)])
    return center, float((MARGIN * reach).clamp(SMALLEST * seen_whole, ROOM * seen_whole))


def common_direction(poses: Float64[Tensor, "V 3 4"]) -> Float64[Tensor, "3"] | None:
    """The unit direction that all cameras look in, or None where they look in many."""
    mean = -poses[:, :, 2].mean(0)
    return mean / mean.norm() if mean.norm() >= SAME_WAY else None


def ball_around(balls: list[tuple[Float64[Tensor, "3"], float]]) -> tuple[Float64[Tensor, "3"], float]:
    """Centre and radius of a ball that holds others, given by centre and radius."""
    centers, radii = torch.stack([center for center, _ in balls]), [radius for _, radius in balls]
    center = centers.mean(0)
    return center, float(((centers - center).norm(dim=1) + center.new_tensor(radii)).max())


def lookat_point(poses: Float64[Tensor, "V 3 4"]) -> Float64[Tensor, "3"]:
    """The one point nearest to the optical axes of most cameras.

    The sum of distances is minimised by iteratively reweighted least squares, then the sum of squares over the axes
    that pass nearby: neighbours with nearly the same axis cannot move it, nor can a minority that looks elsewhere.

    Args:
        poses: [V, 3, 4] camera to world, OpenGL, rigid.
    """
    origins, directions = poses[:, :, 3], -poses[:, :, 2]
    across = torch.eye(3).to(poses) - directions[:, :, None] * directions[:, None, :]  # [V, 3, 3]
    middle = origins.mean(0)
    spread = (origins - middle).square().sum(1).mean().sqrt().clamp_min(1e-12)
    ahead = middle + spread * directions.mean(0)

    def solve(weight: Tensor) -> Tensor:
        weighted = (weight / weight.sum())[:, None, None] * across
        matrix = weighted.sum(0) + PRIOR_WEIGHT * torch.eye(3).to(poses)
        return torch.linalg.solve(matrix, (weighted @ origins[:, :, None]).sum(0)[:, 0] + PRIOR_WEIGHT * ahead)

    def distance(point: Tensor) -> Tensor:
        return (across @ (point - origins)[:, :, None])[:, :, 0].norm(dim=1)

    point = solve(torch.ones_like(origins[:, 0]))
    for _ in range(50):
        point = solve(1 / distance(point).clamp_min(1e-9 * spread))
    off = distance(point)
    return solve((off <= 3 * off.median() + 1e-6 * spread).to(poses))


def _ball_ahead(
    poses: Float64[Tensor, "V 3 4"], forward: Float64[Tensor, "3"], tangent: Tensor, bounds: Float64[Tensor, "V 2"]
) -> tuple[Float64[Tensor, "3"], float]:
    """A ball in front of cameras that look the same way, from the nearest depth to the farthest.

    It ends before that where it would be so large that the cameras see only its middle, or come close to its box.
    """
    near, far = bounds.median(0).values
    sight = tangent.amin(1).median()
    share = (ROOM * sight / (1 + sight.square()).sqrt()).clamp_max(LARGEST_SHARE)  # radius <= share * distance
    radius = torch.minimum((far - near) / 2, near * share / (1 - share))
    return poses[:, :, 3].mean(0) + (near + radius) * forward, float(radius)


def _tangent(cameras: Cameras) -> Float[Tensor, "V 2"]:
    """Of the angle between the optical axis and the nearer of the edges left and right, and above and below."""
    angles = []
    for axis in (0, 1):
        low, high = cameras.center.long(), cameras.center.long()
        low[:, axis], high[:, axis] = 0, cameras.size[:, axis] - 1
        angles.append(torch.minimum(_off_axis(cameras, low), _off_axis(cameras, high)))
    return torch.stack(angles, dim=1).clamp_max(WIDEST).tan()


def _off_axis(cameras: Cameras, pixel: Int[Tensor, "V 2"]) -> Float[Tensor, "V"]:
    """Angle in radians between the optical axis of every camera and the ray of one of its pixels."""
    _, direction = cameras.rays(torch.arange(len(cameras), device=pixel.device), pixel)
    return (-direction * cameras.pose[:, :, 2]).sum(1).clamp(-1, 1).acos()


def _points_around(
    center: Float[Tensor, "3"],
    radius: Tensor,
    poses: Float[Tensor, "V 3 4"],
    tangent: Float[Tensor, "V 2"],
    points: Float[Tensor, "M 3"],
) -> Float[Tensor, "N 3"] | None:
    """The points in sight of most cameras within a ball, which first moves from `center` to where they are densest.

    Photographers aim past the front of things; mean shift (Fukunaga and Hostetler 1975) comes back to it. None where
    there are too few points to say anything.
    """
    points = points[(points - center).norm(dim=1) <= 2 * radius]
    points = points[:: len(points) // MOST_POINTS + 1]
    points = points[_share_of_cameras(poses, tangent, points) >= MOST]
    for _ in range(10):
        around = points[(points - center).norm(dim=1) <= radius]
        if len(around) < FEWEST_POINTS:
            return None
        center = around.mean(0)
    return around


def _clearance(
    poses: Float[Tensor, "V 3 4"], tangent: Float[Tensor, "V 2"], center: Float[Tensor, "3"]
) -> Float[Tensor, "V"]:
    """Radius of the largest ball around `center` that each camera sees whole, negative where it does not see it."""
    local = ((center - poses[:, :, 3])[:, None] @ poses[:, :, :3])[:, 0]  # [V, 3]
    # Distances from the planes through the camera and the edges of its image.
    return ((-local[:, 2:] * tangent - local[:, :2].abs()) / (1 + tangent.square()).sqrt()).amin(1)


def _share_of_cameras(
    poses: Float[Tensor, "V 3 4"], tangent: Float[Tensor, "V 2"], points: Float[Tensor, "M 3"]
) -> Float[Tensor, "M"]:
    """Share of the cameras that have each point in their image."""
    n_cameras = torch.zeros_like(points[:, 0])
    for pose, limits in zip(poses, tangent, strict=True):
        local = (points - pose[:, 3]) @ pose[:, :3]
        n_cameras += (local[:, :2].abs() <= -local[:, 2:] * limits).all(1)
    return n_cameras / len(poses)


def _smallest_ball(points: Float[Tensor, "M 3"]) -> tuple[Float[Tensor, "3"], Tensor]:
    """A ball around all points, about as small as can be (Badoiu and Clarkson 2003)."""
    center = points.mean(0)
    for step in range(100):
        center = center + (points[(points - center).square().sum(1).argmax()] - center) / (step + 2)
    return center, (points - center).norm(dim=1).max()


def _visual_hull(
    views: Views, center: Float64[Tensor, "3"], radius: float
) -> tuple[Float64[Tensor, "3"], float] | None:
    """The smallest ball around what the masks show, or None where they agree on nothing.

    Args:
        views: with masks.
        center, radius: where to look first.
    """
    half = torch.full_like(center, radius)
    for _ in range(4):
        voxels, side = _object_voxels(views, center, half)
        if len(voxels) == 0:
            return None
        if ((voxels - center).abs() < half - side).all():
            break
        half = 2 * half  # the object reaches the border of the grid

    low, high = voxels.amin(0) - side, voxels.amax(0) + side
    voxels, side = _object_voxels(views, (low + high) / 2, (high - low) / 2)
    if len(voxels) == 0:
        return None
    center, reach = _smallest_ball(voxels)
    return center, float(reach + side.norm())


def _object_voxels(
    views: Views, center: Float[Tensor, "3"], half: Float[Tensor, "3"]
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "3"]]:
    """Middles of the voxels of a box that nearly no mask denies and most show, and the sides of a voxel.

    Args:
        center: [3] of the box.
        half: [3] its sides, halved.
    """
    steps = (torch.arange(N_VOXELS).to(center) + 0.5) * 2 / N_VOXELS - 1
    voxels = center + half * torch.cartesian_prod(steps, steps, steps)  # [N_VOXELS^3, 3]
    chosen = torch.linspace(0, len(views) - 1, min(len(views), N_MASKS)).round().long().tolist()
    n_denied, n_shown = torch.zeros(2, len(voxels), device=voxels.device)
    for view in chosen:
        is_in_image, is_object = _look_up(views, view, voxels)
        n_denied += is_in_image & ~is_object
        n_shown += is_object
        # What is lost already need not be looked at again.
        kept = n_denied <= DISSENT * len(chosen)
        voxels, n_denied, n_shown = voxels[kept], n_denied[kept], n_shown[kept]
    return voxels[n_shown >= MOST * len(chosen)], 2 * half / N_VOXELS


def _look_up(views: Views, view: int, points: Float[Tensor, "N 3"]) -> tuple[Bool[Tensor, "N"], Bool[Tensor, "N"]]:
    """Which points lie in an image, and which of these its mask calls object."""
    assert views.alpha is not None
    rows = torch.full((len(points),), view, device=points.device)
    place, depth = views.cameras.project(rows, points.to(views.cameras.pose))
    width, height = views.size(view)
    is_in_image = (depth > 0) & (place >= 0).all(1) & (place[:, 0] < width) & (place[:, 1] < height)
    pixel = place[is_in_image].long()
    is_object = is_in_image.clone()
    is_object[is_in_image] = views.alpha[views.offsets[view] + pixel[:, 1] * width + pixel[:, 0]] >= 128
    return is_in_image, is_object
