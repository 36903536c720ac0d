"""`transforms*.json`: file, pose and intrinsics of every photograph.

Blender's exporter for NeRF began the format, Instant-NGP and nerfstudio extended it with intrinsics in pixels, lenses
and masks. Values inside a frame win over those shared by all frames.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.folders import IMAGE_ENDINGS
from datasets.lenses import Lens
from utils.notice import notice
from utils.registry import ConfigError

PERSPECTIVE = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
FISHEYE = ("k1", "k2", "k3", "k4")
MODELS = {
    **dict.fromkeys(("SIMPLE_PINHOLE", "PINHOLE"), ()),
    # What k4 means where a file does not say FULL_OPENCV, programs disagree on.
    **dict.fromkeys(("SIMPLE_RADIAL", "RADIAL", "OPENCV"), PERSPECTIVE[:5]),
    "FULL_OPENCV": PERSPECTIVE,
    **dict.fromkeys(("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "OPENCV_FISHEYE"), FISHEYE),
}
"""Keys of the lens that each `camera_model` knows, in the order of `Lens.distortion`."""
OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular")
"""Keys of Instant-NGP that say an image was not taken by any of them."""
RIGID_TOLERANCE = 1e-3


@runtime_checkable
class Described(Protocol):
    """Something in a file: `where` is the file and the entry."""

    where: str


F = TypeVar("F", bound=Described)


@dataclass
class Frame:
    """One photograph as the file describes it.

    Attributes:
        where: file and entry, for errors.
        image: the image file, if it `exists`.
        pose: [3, 4] camera to the world of the file.
        levels: the frame's own values and the shared ones, in the order they are looked up.
        root: the folder that paths are relative to.
    """

    where: str
    image: Path
    pose: Float64[Tensor, "3 4"]
    levels: tuple[Mapping[str, Any], Mapping[str, Any]]
    root: Path

    @property
    def exists(self) -> bool:
        return self.image.is_file()

    def file(self, key: str) -> Path | None:
        """The file that a key such as `mask_path` names, or None without the key."""
        name = self._value(key)
        return None if name is None else inside(self.root, name, self.where)

    def lens(self, width: int, height: int) -> Lens:
        """The lens, in pixels of the image at its own size.

        Raises:
            ConfigError: the file speaks of another size, says neither `fl_x` nor `camera_angle_x`, or knows a lens
                that is unknown here.
        """
        self._check_size(width, height)
        names = self._distortion_names()
        focal_x = self._focal("fl_x", "camera_angle_x", width)
        if focal_x is None:
            raise ConfigError(f"{self.where}: neither 'fl_x' nor 'camera_angle_x' is given; add one of them")
        focal_y = self._focal("fl_y", "camera_angle_y", height) or focal_x
        center = [self.number("cx"), self.number("cy")]
        center = [half if c is None else c for c, half in zip(center, (width / 2, height / 2), strict=True)]
        distortion = torch.zeros(len(PERSPECTIVE))
        for place, name in enumerate(names):
            distortion[place] = self.number(name) or 0.0
        return Lens(torch.tensor([focal_x, focal_y]), torch.tensor(center), distortion, names == FISHEYE)

    def _check_size(self, width: int, height: int) -> None:
        said = (self.number("w") or width, self.number("h") or height)
        if said != (width, height):
            raise ConfigError(
                f"{self.image} is {width}x{height}, but {self.where} says w, h = {said[0]:g}, {said[1]:g}; "
                "resize the image or correct the file"
            )

    def _distortion_names(self) -> tuple[str, ...]:
        """Keys of the lens, those of the rational model where the file does not say which one it is."""
        model = self._value("camera_model") or ("OPENCV_FISHEYE" if self._value("is_fisheye") else "OPENCV")
        other = next((key for key in OTHER_LENSES if self._value(key)), None)
        if model not in MODELS or other is not None:
            raise ConfigError(
                f"{self.where}: lens '{other or model}' is unknown here; known camera models: {', '.join(MODELS)}"
            )
        for key in PERSPECTIVE:
            if key not in MODELS[model] and self.number(key):
                raise ConfigError(
                    f"{self.where}: '{key}' = {self.number(key):g}, but {model} lenses have no such coefficient; "
                    "correct 'camera_model' or set it to 0"
                )
        return MODELS[model]

    def _focal(self, length: str, angle: str, extent: int) -> float | None:
        for level in self.levels:
            if length in level:
                return number(level, length, self.where, (0, math.inf))
            if angle in level:
                return 0.5 * extent / math.tan(0.5 * number(level, angle, self.where, (0, math.pi)))
        return None

    def _value(self, key: str) -> Any:
        return next((level[key] for level in self.levels if key in level), None)

    def number(self, key: str) -> float | None:
        """The number under a key, or None without the key."""
        return next((number(level, key, self.where) for level in self.levels if key in level), None)


def read_transforms(path: Path) -> dict[str, Any]:
    """The content of a transforms file; it has a key `frames`.

    Raises:
        ConfigError: broken JSON, or no such key.
    """
    try:
        shared = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON, {error.msg}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text: {error}") from error
    if not isinstance(shared, dict) or "frames" not in shared:
        raise ConfigError(f"{path}: key 'frames' is missing; expected a mapping with the list of photographs in it")
    return shared


def frames_of(content: Mapping[str, Any], path: Path) -> list[Frame]:
    """The frames in the content of a transforms file; images are found relative to its folder.

    Raises:
        ConfigError: a key is missing, a pose is not rigid, or a path leads out of the folder.
    """
    if not isinstance(content["frames"], list) or not content["frames"]:
        raise ConfigError(f"{path}: 'frames' holds no photographs; expected a list of at least one")
    return [_frame(path, index, entry, content) for index, entry in enumerate(content["frames"])]


def require_images(frames: list[Frame]) -> list[Frame]:
    """The frames.

    Raises:
        ConfigError: the image of one is missing.
    """
    for frame in frames:
        if not frame.exists:
            tried = ", ".join(candidate.name for candidate in _candidates(frame.image))
            raise ConfigError(f"{frame.where}: image is missing; {frame.image.parent} holds none of {tried}")
    return frames


def with_images(frames: list[Frame]) -> list[Frame]:
    """The frames whose image is there; a notice tells of the others.

    Raises:
        ConfigError: no image is there.
    """
    return usable(frames, lambda frame: frame.exists, "images are missing") or require_images(frames)


def usable(frames: list[F], is_usable: Callable[[F], bool], problem: str) -> list[F]:
    """The frames that can be used; a notice tells of the others, if there are both.

    Args:
        problem: of the others, such as "images are missing".
    """
    found = [frame for frame in frames if is_usable(frame)]
    if found and len(found) < len(frames):
        first = next(frame for frame in frames if not is_usable(frame))
        notice(f"{len(frames) - len(found)} of {len(frames)} {problem} and left out, first {first.where}")
    return found


def _frame(path: Path, index: int, entry: Any, shared: Mapping[str, Any]) -> Frame:
    where = f"{path}, frame {index}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected a mapping, found {type(entry).__name__}")
    for key in ("file_path", "transform_matrix"):
        if key not in entry:
            raise ConfigError(f"{where}: key '{key}' is missing")
    where = f"{where} ({entry['file_path']})"
    named = inside(path.parent, entry["file_path"], where)
    image = next((candidate for candidate in _candidates(named) if candidate.is_file()), named)
    pose = rigid(entry["transform_matrix"], f"{where}: transform_matrix")
    return Frame(where, image, pose, (entry, shared), path.parent)


def _candidates(path: Path) -> list[Path]:
    """Files that a frame may mean: it may leave out the ending of its image."""
    return [path, *(path.with_name(path.name + ending) for ending in IMAGE_ENDINGS)]


def inside(root: Path, name: Any, where: str) -> Path:
    """The path that a file in the folder `root` names.

    Raises:
        ConfigError: it leads out of that folder.
    """
    path = root / str(name)
    # By its words: a link within the folder may lead out.
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise ConfigError(f"{where}: path '{name}' leaves the data folder {root}; move the file there")
    return path


def rigid(matrix: Any, what: str) -> Float64[Tensor, "3 4"]:
    """A rotation and a translation from a file.

    Raises:
        ConfigError: it is none; the message begins with `what`.
    """
    try:
        pose = torch.tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{what} is no matrix of numbers; expected 4 rows of 4") from error
    if pose.shape not in ((4, 4), (3, 4)):
        raise ConfigError(f"{what} has shape {tuple(pose.shape)}; expected 4 rows of 4")
    if not pose.isfinite().all():
        raise ConfigError(f"{what} holds NaN or infinity; remove the frame or estimate it again")
    rotation = pose[:3, :3]
    deviation = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max().item()
    if deviation > RIGID_TOLERANCE or torch.det(rotation) < 0:
        raise ConfigError(
            f"{what} is not rigid (determinant {torch.det(rotation):.3g}, off by {deviation:.2g}); "
            "expected a rotation and a translation without scale or mirroring"
        )
    left, _, right = torch.linalg.svd(rotation)
    # The nearest rotation: files round, and lengths along rays rely on it.
    return torch.cat((left @ right, pose[:3, 3:]), dim=1)


def number(
    level: Mapping[str, Any], key: str, where: str, between: tuple[float, float] = (-math.inf, math.inf)
) -> float:
    """The number under a key that is there.

    Raises:
        ConfigError: it is none, or not strictly between these limits.
    """
    value, (low, high) = level[key], between
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        limits = "a finite number" if low == -math.inf else f"a number between {low:g} and {high:.6g}"
        raise ConfigError(f"{where}: '{key}' is {value!r}; expected {limits}")
    return float(value)
