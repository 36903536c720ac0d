"""Camera paths around the origin of a scene, for videos."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.cameras import Cameras
from datasets.normalize import upright
from datasets.views import Views, pixel_offsets
from utils.registry import ConfigError

Trajectory = Literal["auto", "circle", "arc", "spiral"]

ALL_AROUND = math.radians(260)
"""Cameras that sweep this angle, seen from above, stand all around the object."""
N_SPIRAL_TURNS = 2
STEEPEST = math.radians(80)
"""Elevation at which a spiral ends at the latest: straight from above, one turn looks like the next."""
UP_WEIGHT = 1e-3
"""What the cameras' up axes count for against their horizons, where all cameras face the same way."""


def make_path(kind: Trajectory, poses: Float[Tensor, "V 3 4"], n_steps: int) -> Float[Tensor, "n 3 4"]:
    """Poses along a path that looks at the origin.

    Args:
        kind: `circle` goes once around z at the mean height and distance of the cameras; its last frame is one step
            before the first. `arc` swings from the first to the last of the cameras' directions, level as they are,
            whatever way is up in the scene. `spiral` turns twice, from the height of the lowest camera to that of the
            highest. `auto` is a circle where cameras stand all around, else an arc.
        poses: [V, 3, 4] camera to scene, of the photographs.
        n_steps: number of frames, at least 1.

    Raises:
        ConfigError: fewer frames.
    """
    if n_steps < 1:
        raise ConfigError(f"dataset.n_test_traj_steps = {n_steps}; expected at least 1 frame")
    poses = poses.double()
    axes = torch.eye(3).to(poses)
    if kind == "auto":
        _, span = _sweep(poses[:, :, 3])
        kind = "circle" if span >= ALL_AROUND else "arc"
    if kind == "arc":
        axes = upright(_level_up(poses)).T
    place = poses[:, :, 3] @ axes  # [V, 3] along the path's own x, y and up
    azimuth, height = torch.atan2(place[:, 1], place[:, 0]), place[:, 2].mean()
    distance = place.norm(dim=1).mean()
    level = (distance.square() - height.square()).clamp_min(0).sqrt()
    elevation = torch.atan2(height, level).expand(n_steps)

    if kind == "circle":
        turn = azimuth[0] + _steps(0, 2 * math.pi, n_steps + 1)[:-1]
    elif kind == "arc":
        start, span = _sweep(place)
        turn = _steps(start, start + span, n_steps)
    else:
        turn = azimuth[0] + _steps(0, 2 * math.pi * N_SPIRAL_TURNS, n_steps)
        all_elevations = torch.asin(place[:, 2] / place.norm(dim=1).clamp_min(1e-12)).clamp(-STEEPEST, STEEPEST)
        elevation = _steps(all_elevations.min(), all_elevations.max(), n_steps)
    return _looking_inward(turn, elevation, distance, axes).float()


def path_views(poses: Float[Tensor, "n 3 4"], like: Cameras, longest_side: int) -> Views:
    """A path as views without photographs, all with shape and field of view of the first of `like`, undistorted.

    The optical axis passes the middle of the image, even where that of a cropped photograph does not.

    Args:
        poses: of the frames.
        like: at least one camera.
        longest_side: of the images, pixels; they are not larger than that camera's.

    Raises:
        ConfigError: `longest_side` is not positive.
    """
    if longest_side < 1:
        raise ConfigError(f"dataset.test_traj_size = {longest_side}; expected at least 1 pixel")
    n_frames, share = len(poses), min(1.0, longest_side / int(like.size[0].max()))
    like = like.resized((like.size * share).round().long().clamp_min(1))
    focal, size = (part[:1].repeat(n_frames, 1) for part in (like.focal, like.size))
    names = [f"path {frame:03d}" for frame in range(n_frames)]
    return Views(Cameras(poses, focal, size / 2, size), names, pixel_offsets(size), color=None)


def _steps(start: Tensor | float, stop: Tensor | float, n_steps: int) -> Float[Tensor, "n"]:
    """Evenly from start to stop, both included."""
    return torch.linspace(float(start), float(stop), n_steps, dtype=torch.float64)


def _looking_inward(
    azimuth: Float[Tensor, "n"], elevation: Float[Tensor, "n"], distance: Tensor, axes: Float[Tensor, "3 3"]
) -> Float[Tensor, "n 3 4"]:
    """Poses that look at the origin with a level horizon, also from straight above.

    Args:
        azimuth, elevation: [n] radians, of the cameras seen from the origin.
        distance: scalar, of all cameras from it.
        axes: [3, 3] columns x, y and up, to which the angles refer.
    """
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    right = torch.stack((-sin_a, cos_a, torch.zeros_like(azimuth)), dim=1)
    back = torch.stack((cos_e * cos_a, cos_e * sin_a, sin_e), dim=1)
    up = torch.cross(back, right, dim=1)
    return axes @ torch.stack((right, up, back, distance * back), dim=2)


def _sweep(places: Float[Tensor, "V 3"]) -> tuple[float, float]:
    """The shortest turn around z that passes all places: azimuth where it starts, and its angle, radians."""
    azimuth = torch.atan2(places[:, 1], places[:, 0]).sort().values
    gaps = torch.diff(azimuth, append=azimuth[:1] + 2 * math.pi)  # from each to the next
    widest = int(gaps.argmax())
    return float(azimuth[(widest + 1) % len(azimuth)]), float(2 * math.pi - gaps[widest])


def _level_up(poses: Float[Tensor, "V 3 4"]) -> Float[Tensor, "3"]:
    """The direction most perpendicular to the right axes of the cameras, with the sign of their mean up axis."""
    right, mean_up = poses[:, :, 0], poses[:, :, 1].mean(0)
    scatter = right.T @ right / len(right) - UP_WEIGHT * mean_up[:, None] * mean_up  # [3, 3], symmetric
    up = torch.linalg.eigh(scatter).eigenvectors[:, 0]
    return up if up @ mean_up >= 0 else -up
