"""`transforms_*.json`: file, pose and intrinsics of every photograph.

Blender's exporter for NeRF began the format, Instant-NGP and nerfstudio extended it with intrinsics in pixels.
Values inside a frame win over those shared by all frames.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from utils.registry import ConfigError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
RIGID_TOLERANCE = 1e-3


@dataclass
class Frame:
    """One photograph as the file describes it.

    Attributes:
        where: file and entry, for errors.
        image: the image file.
        pose: [3, 4] camera to world.
        levels: the frame's own values and the shared ones, in the order they are looked up.
    """

    where: str
    image: Path
    pose: Float[Tensor, "3 4"]
    levels: tuple[Mapping[str, Any], Mapping[str, Any]]

    def check_size(self, width: int, height: int) -> None:
        """Compares the size of the image with `w` and `h`, where they are given.

        Raises:
            ConfigError: they differ.
        """
        said = (self._number("w") or width, self._number("h") or height)
        if said != (width, height):
            raise ConfigError(
                f"{self.image} is {width}x{height}, but {self.where} says w, h = {said[0]:g}, {said[1]:g}; "
                "resize the image or correct the file"
            )

    def intrinsics(self, width: int, height: int) -> tuple[Float[Tensor, "2"], Float[Tensor, "2"]]:
        """Focal lengths and principal point, in pixels of the image at its own size.

        Raises:
            ConfigError: the file says neither `fl_x` nor `camera_angle_x`, or knows a lens distortion.
        """
        for key in DISTORTION:
            if self._number(key):
                raise ConfigError(
                    f"{self.where}: '{key}' = {self._number(key):g} says the lens distorts, which is not undone here; "
                    "undistort the images and set it to 0"
                )
        focal_x = self._focal("fl_x", "camera_angle_x", width)
        if focal_x is None:
            raise ConfigError(f"{self.where}: neither 'fl_x' nor 'camera_angle_x' is given; add one of them")
        focal_y = self._focal("fl_y", "camera_angle_y", height) or focal_x
        center = [self._number("cx"), self._number("cy")]
        center = [half if c is None else c for c, half in zip(center, (width / 2, height / 2), strict=True)]
        return torch.tensor([focal_x, focal_y]), torch.tensor(center)

    def _focal(self, length: str, angle: str, extent: int) -> float | None:
        for level in self.levels:
            if length in level:
                return _number(level, length, self.where, (0, math.inf))
            if angle in level:
                return 0.5 * extent / math.tan(0.5 * _number(level, angle, self.where, (0, math.pi)))
        return None

    def _number(self, key: str) -> float | None:
        return next((_number(level, key, self.where) for level in self.levels if key in level), None)


def read_frames(path: Path) -> list[Frame]:
    """The frames of a transforms file; images are found relative to its folder.

    Raises:
        ConfigError: broken JSON, a key that is missing, a pose that is not rigid, or an image that is not there.
    """
    try:
        shared = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON, {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}") from error
    if not isinstance(shared, dict) or "frames" not in shared:
        raise ConfigError(f"{path}: key 'frames' is missing; expected a mapping with the list of photographs in it")
    if not isinstance(shared["frames"], list) or not shared["frames"]:
        raise ConfigError(f"{path}: 'frames' holds no photographs; expected a list of at least one")
    return [_frame(path, index, entry, shared) for index, entry in enumerate(shared["frames"])]


def _frame(path: Path, index: int, entry: Any, shared: Mapping[str, Any]) -> Frame:
    where = f"{path}, frame {index}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected a mapping, found {type(entry).__name__}")
    for key in ("file_path", "transform_matrix"):
        if key not in entry:
            raise ConfigError(f"{where}: key '{key}' is missing")
    where = f"{where} ({entry['file_path']})"
    image = _find_image(path.parent / str(entry["file_path"]), where)
    return Frame(where, image, _pose(entry["transform_matrix"], where), (entry, shared))


def _find_image(path: Path, where: str) -> Path:
    candidates = [path, *(path.with_name(path.name + ending) for ending in IMAGE_ENDINGS)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = ", ".join(candidate.name for candidate in candidates)
    raise ConfigError(f"{where}: image is missing; {path.parent} holds none of {tried}")


def _pose(matrix: Any, where: str) -> Float[Tensor, "3 4"]:
    try:
        pose = torch.tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: transform_matrix is no matrix of numbers; expected 4 rows of 4") from error
    if pose.shape not in ((4, 4), (3, 4)):
        raise ConfigError(f"{where}: transform_matrix has shape {tuple(pose.shape)}; expected 4 rows of 4")
    if not pose.isfinite().all():
        raise ConfigError(f"{where}: transform_matrix holds NaN or infinity; remove the frame or estimate it again")
    rotation = pose[:3, :3]
    deviation = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max().item()
    if deviation > RIGID_TOLERANCE or torch.det(rotation) < 0:
        raise ConfigError(
            f"{where}: transform_matrix is not rigid (determinant {torch.det(rotation):.3g}, off by {deviation:.2g}); "
            "expected a rotation and a translation without scale or mirroring"
        )
    left, _, right = torch.linalg.svd(rotation)
    # The nearest rotation: files round, and lengths along rays rely on it.
    return torch.cat((left @ right, pose[:3, 3:]), dim=1).float()


def _number(
    level: Mapping[str, Any], key: str, where: str, between: tuple[float, float] = (-math.inf, math.inf)
) -> float:
    value, (low, high) = level[key], between
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        limits = "a finite number" if low == -math.inf else f"a number between {low:g} and {high:.6g}"
        raise ConfigError(f"{where}: '{key}' is {value!r}; expected {limits}")
    return float(value)
