"""The files of a COLMAP model, binary or text.

Format: https://colmap.github.io/format.html
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from datasets.colmap_model import NO_POINT, PARAMETERS, ColmapCamera, ColmapImage, ColmapModel, ColmapPoints
from utils.registry import ConfigError, nearest

T = TypeVar("T")

FILES = ("cameras", "images", "points3D")
MODELS = (
    *("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV"),
    *("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE"),
)
"""Names of camera models, at the number that stands for them in binary files."""


def has_model(folder: Path) -> bool:
    """Whether any file of a model lies in a folder."""
    return any((folder / f"{name}{ending}").is_file() for name in FILES for ending in (".bin", ".txt"))


def read_model(folder: Path) -> ColmapModel:
    """The model in a folder; where binary and text files lie side by side, the binary ones.

    Raises:
        ConfigError: a file is missing, damaged or empty, a camera model is unknown here, a number is not finite, or
            the files contradict each other.
    """
    for ending, readers in ((".bin", _BINARY), (".txt", _TEXT)):
        paths = [folder / f"{name}{ending}" for name in FILES]
        if all(path.is_file() for path in paths):
            read_cameras, read_images, read_points = readers
            cameras = {camera.number: camera for camera in _read(paths[0], read_cameras)}
            images = sorted(_read(paths[1], read_images), key=lambda image: image.name)
            points = _in_order(_read(paths[2], read_points))
            model = ColmapModel(cameras, images, points)
            _check(model, *paths)
            return model
    present = sorted(path.name for path in folder.iterdir() if path.stem in FILES)
    raise ConfigError(
        f"{folder} holds {', '.join(present) or 'no COLMAP model'}; expected cameras, images and points3D, "
        "all as .bin or all as .txt"
    )


def _read(path: Path, read: Callable[[bytes], T]) -> T:
    try:
        return read(path.read_bytes())
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from error
    except (struct.error, ValueError, OverflowError, OSError) as error:
        raise ConfigError(f"{path} is damaged or no COLMAP file ({error}); copy or export it again") from error


class _Bytes:
    """A binary file and how far it has been read."""

    def __init__(self, content: bytes):
        self._content, self._at = content, 0

    def values(self, layout: str) -> tuple:
        """Little-endian values in the notation of `struct`."""
        at = self._at
        self.skip(struct.calcsize(f"<{layout}"))
        return struct.unpack_from(f"<{layout}", self._content, at)

    def count(self) -> int:
        return self.values("Q")[0]

    def name(self) -> str:
        end = self._content.index(b"\0", self._at)
        name, self._at = self._content[self._at : end].decode("utf-8"), end + 1
        return name

    def table(self, row: np.dtype, n_rows: int) -> np.ndarray:
        at = self._at
        self.skip(n_rows * row.itemsize)
        return np.frombuffer(self._content, row, n_rows, at)

    def skip(self, n_bytes: int) -> None:
        self._at += n_bytes
        if self._at > len(self._content):
            raise ValueError("it ends too early")


def _binary_cameras(content: bytes) -> list[ColmapCamera]:
    file, cameras = _Bytes(content), []
    for _ in range(file.count()):
        number, kind, width, height = file.values("iiQQ")
        model = MODELS[kind] if 0 <= kind < len(MODELS) else f"number {kind}"
        _check_camera_model(model, f"camera {number}")
        parameters = file.values(f"{len(PARAMETERS[model].split())}d")
        cameras.append(ColmapCamera(number, model, width, height, list(parameters)))
    return cameras


_FEATURE = np.dtype([("pixel", "<f8", 2), ("point", "<i8")])
_POINT = np.dtype([("number", "<i8"), ("position", "<f8", 3), ("color", "u1", 3), ("error", "<f8")])
_TRACK_ENTRY = struct.calcsize("<ii")


def _binary_images(content: bytes) -> list[ColmapImage]:
    file, images = _Bytes(content), []
    for _ in range(file.count()):
        _, *pose, camera = file.values("i7di")
        name = file.name()
        features = file.table(_FEATURE, file.count())
        images.append(_image(name, camera, pose, features["pixel"], features["point"]))
    return images


def _binary_points(content: bytes) -> ColmapPoints:
    file, heads = _Bytes(content), []
    for _ in range(file.count()):
        heads.append(file.table(_POINT, 1))
        # Tracks repeat what the features of the images say.
        file.skip(file.count() * _TRACK_ENTRY)
    table = np.concatenate(heads) if heads else np.empty(0, _POINT)
    return ColmapPoints(table["number"], table["position"], table["color"], table["error"])


def _lines(content: bytes) -> Iterator[tuple[str, str]]:
    """Lines without comments and where they are; empty ones stay, because they say that an image has no features."""
    for number, line in enumerate(content.decode("utf-8").split("\n"), start=1):
        if not line.lstrip().startswith("#"):
            yield f"line {number}", line.strip()


def _text_cameras(content: bytes) -> list[ColmapCamera]:
    cameras = []
    for where, line in _lines(content):
        if not line:
            continue
        number, model, *numbers = line.split()
        _check_camera_model(model, where)
        expected = f"WIDTH HEIGHT {PARAMETERS[model]}"
        try:
            width, height, *parameters = (float(value) for _, value in zip(expected.split(), numbers, strict=True))
            cameras.append(ColmapCamera(int(number), model, int(width), int(height), parameters))
        except ValueError as error:
            raise ConfigError(f"{where}: expected CAMERA_ID {model} {expected} ({error})") from error
    return cameras


def _text_images(content: bytes) -> list[ColmapImage]:
    lines, images = _lines(content), []
    for where, line in lines:
        if not line:
            continue
        try:
            _, *pose, camera, name = line.split(maxsplit=9)  # names may hold blanks
            if len(pose) != 7:
                raise ValueError("too few values")
            features = np.array(next(lines, ("", ""))[1].split(), dtype=np.float64).reshape(-1, 3)
            point = features[:, 2].astype(np.int64)
            images.append(_image(name, int(camera), [float(value) for value in pose], features[:, :2], point))
        except ValueError as error:
            raise ConfigError(
                f"{where}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and X Y POINT3D_ID for each "
                f"feature in the line after it ({error})"
            ) from error
    return images


def _text_points(content: bytes) -> ColmapPoints:
    rows = [(where, line.split()[:8]) for where, line in _lines(content) if line]
    for where, row in rows:
        if len(row) < 8:
            raise ConfigError(f"{where}: expected POINT3D_ID X Y Z R G B ERROR and the track")
    table = np.array([row for _, row in rows], dtype=np.float64).reshape(-1, 8)
    return ColmapPoints(table[:, 0].astype(np.int64), table[:, 1:4], table[:, 4:7].astype(np.uint8), table[:, 7])


_BINARY = (_binary_cameras, _binary_images, _binary_points)
_TEXT = (_text_cameras, _text_images, _text_points)


def _image(name: str, camera: int, pose: list[float], pixel: np.ndarray, point: np.ndarray) -> ColmapImage:
    return ColmapImage(name, camera, np.array(pose[:4]), np.array(pose[4:]), pixel, point)


def _in_order(points: ColmapPoints) -> ColmapPoints:
    order = np.argsort(points.number)
    return ColmapPoints(points.number[order], points.position[order], points.color[order], points.error[order])


def _check_camera_model(model: str, where: str) -> None:
    if model not in PARAMETERS:
        raise ConfigError(
            f"{where}: camera model {model} is not known{nearest(model, list(PARAMETERS))}; "
            f"known: {', '.join(PARAMETERS)}; undistort the photographs with COLMAP (image_undistorter)"
        )


def _check(model: ColmapModel, in_cameras: Path, in_images: Path, in_points: Path) -> None:
    if not model.images:
        raise ConfigError(f"{in_images} holds no image; the reconstruction failed, run it again")
    for camera in model.cameras.values():
        is_finite = np.isfinite(camera.parameters).all()
        if not is_finite or min(camera.width, camera.height) < 1 or camera.lens().focal.min() <= 0:
            raise ConfigError(
                f"{in_cameras}, camera {camera.number}: {camera.width}x{camera.height} pixels, "
                f"{PARAMETERS[camera.model]} = {camera.parameters}; expected a size, positive focal lengths and "
                "finite numbers"
            )
    if not np.isfinite(model.points.position).all():
        raise ConfigError(f"{in_points}: a position holds NaN or infinity; export the model again")
    for image in model.images:
        _check_image(image, model, f"{in_images}, {image.name}")


def _check_image(image: ColmapImage, model: ColmapModel, where: str) -> None:
    if image.camera not in model.cameras:
        raise ConfigError(f"{where}: camera {image.camera} is missing; the files are of different models")
    if not (np.isfinite(image.quaternion).all() and np.isfinite(image.translation).all()):
        raise ConfigError(f"{where}: the pose holds NaN or infinity; register the image again or remove it")
    if np.linalg.norm(image.quaternion) < 1e-6:
        raise ConfigError(f"{where}: the pose is singular, its quaternion is 0; register the image again or remove it")
    is_missing = ~np.isin(image.point, model.points.number) & (image.point != NO_POINT)
    if is_missing.any():
        raise ConfigError(f"{where}: point {image.point[is_missing][0]} is missing; the files are of different models")
