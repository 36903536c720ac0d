"""The files of CO3D, versions 1 and 2: what they say about sequences, frames and splits.

A category is a folder with frame_annotations.jgz and sequence_annotations.jgz, lists of objects in compressed JSON.
Version 1 has set_lists.json, version 2 set_lists/set_lists_<name>.json. All paths are relative to the folder around
the categories.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.folders import some
from utils.registry import ConfigError, nearest

FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"
SPLITS = ("train", "val", "test")
ENDINGS = {"train": "known", "val": "unseen", "test": "unseen"}
"""Of the lists of version 1, by the split that they make: train_known holds known frames of training sequences."""


@dataclass
class Viewpoint:
    """A camera of PyTorch3D.

    Attributes:
        rotation, translation: [3, 3], [3] world to camera for row vectors.
        focal, principal_point: [2] in NDC, where the shorter side of the image spans [-1, 1].
    """

    rotation: Float64[Tensor, "3 3"]
    translation: Float64[Tensor, "3"]
    focal: Float64[Tensor, "2"]
    principal_point: Float64[Tensor, "2"]


@dataclass
class Depth:
    """A depth map: paths of the map and of where it is to be believed, and the factor to its values."""

    path: str
    mask: str | None
    factor: float


@dataclass
class FrameAnnotation:
    """One frame of a video.

    Attributes:
        where: file, sequence and frame, for errors.
        sequence, number, time: where it belongs, and seconds since the video began, if known.
        image, mask: paths.
        size: width and height of both.
        mass: sum of the mask, in pixels, if known.
        box: left, top, width and height of the object, if known.
        depth, viewpoint: None where it has none.
    """

    where: str
    sequence: str
    number: int
    time: float | None
    image: str
    size: tuple[int, int]
    mask: str | None
    mass: float | None
    box: tuple[float, float, float, float] | None
    depth: Depth | None
    viewpoint: Viewpoint | None


class Listed(NamedTuple):
    """A frame in a list, found by its image."""

    sequence: str
    image: str


def read_sequences(category: Path) -> dict[str, str | None]:
    """The path of the point cloud, if there is one, of each sequence.

    Raises:
        ConfigError: the file is missing or broken.
    """
    path = category / SEQUENCES
    try:
        return {entry["sequence_name"]: (entry.get("point_cloud") or {}).get("path") for entry in _read(path, list)}
    except (KeyError, TypeError, AttributeError) as error:
        raise _broken(str(path), "list of sequences", error) from error


def read_frames(category: Path, sequences: Collection[str]) -> list[FrameAnnotation]:
    """The frames of these sequences, in the order of the sequences, then of time.

    Raises:
        ConfigError: the file is missing or broken, or a sequence has no frames.
    """
    path, kept = category / FRAMES, {None, *sequences}

    def forget_others(entry: dict[str, Any]) -> dict[str, Any] | None:
        # A category may have hundreds of thousands of frames, which together would not fit into memory.
        return entry if entry.get("sequence_name") in kept else None

    entries = [entry for entry in _read(path, list, forget_others) if entry is not None]
    frames = [_frame(entry, path) for entry in entries]
    found = {frame.sequence for frame in frames}
    for sequence in sequences:
        if sequence not in found:
            raise ConfigError(f"{path} has no frames of sequence {sequence}; unpack the category again")
    place = {sequence: row for row, sequence in enumerate(sequences)}
    return sorted(frames, key=lambda frame: (place[frame.sequence], frame.number))


def set_list_names(category: Path) -> list[str]:
    """What `read_set_list` knows: of version 1 `train` and `test`, the sequences that its lists divide."""
    if (category / "set_lists.json").is_file():
        return ["train", "test"]
    return sorted(path.stem.removeprefix("set_lists_") for path in (category / "set_lists").glob("set_lists_*.json"))


def read_set_list(category: Path, name: str) -> dict[str, list[Listed]]:
    """The frames of "train", "val" and "test".

    Raises:
        ConfigError: there is no such list, or its file is broken.
    """
    known = set_list_names(category)
    if name not in known:
        raise ConfigError(
            f"dataset.set_list: {category} has no set list '{name}'{nearest(name, known)}; "
            f"those there: {', '.join(known) or 'none'}"
        )
    is_first_version = (category / "set_lists.json").is_file()
    path = category / ("set_lists.json" if is_first_version else f"set_lists/set_lists_{name}.json")
    content = _read(path, dict)
    keys = {split: f"{name}_{ENDINGS[split]}" if is_first_version else split for split in SPLITS}
    return {split: [_listed(entry, path) for entry in content.get(key, [])] for split, key in keys.items()}


def read_eval_batches(path: Path) -> list[list[Listed]]:
    """Batches of the family's evaluation: a target, then the views that it may be predicted from.

    Raises:
        ConfigError: the file is missing or broken.
    """
    batches = [[_listed(entry, path) for entry in _sequence(batch, path)] for batch in _read(path, list)]
    if not all(batches):
        raise ConfigError(f"{path}: batch {batches.index([])} is empty; expected a target and its sources")
    return batches


def _read(path: Path, kind: type, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file, compressed if it ends in .jgz, that is a list or a mapping."""
    if not path.is_file():
        beside = sorted(other.name for other in path.parent.glob("*.j*"))
        raise ConfigError(f"{path} does not exist; files there: {some(beside) or 'none'}")
    try:
        packed = path.read_bytes()
        content = json.loads(gzip.decompress(packed) if path.suffix == ".jgz" else packed, object_hook=hook)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        form = "gzip-compressed JSON" if path.suffix == ".jgz" else "JSON"
        raise ConfigError(f"{path} cannot be read as {form} ({error}); download it again") from error
    if not isinstance(content, kind):
        raise ConfigError(f"{path} holds a {type(content).__name__}; expected a {kind.__name__}")
    return content


def _frame(entry: Any, path: Path) -> FrameAnnotation:
    try:
        where = f"{path}, {entry['sequence_name']} frame {entry['frame_number']}"
    except (KeyError, TypeError) as error:
        raise _broken(str(path), "list of frames", error) from error
    try:
        height, width = map(int, entry["image"]["size"])
        mask, depth, viewpoint = (entry.get(key) for key in ("mask", "depth", "viewpoint"))
        box = None if mask is None else mask.get("bounding_box_xywh")
        return FrameAnnotation(
            where=where,
            sequence=str(entry["sequence_name"]),
            number=int(entry["frame_number"]),
            time=entry.get("frame_timestamp"),
            image=str(entry["image"]["path"]),
            size=(width, height),
            mask=None if mask is None else str(mask["path"]),
            mass=None if mask is None else mask.get("mass"),
            box=None if box is None else tuple(_numbers(box, 4).tolist()),
            depth=None if depth is None else _depth(depth),
            viewpoint=None if viewpoint is None else _viewpoint(viewpoint, width, height),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(where, "frame", error) from error


def _depth(entry: dict[str, Any]) -> Depth:
    factor = float(entry["scale_adjustment"])
    if not 0 < factor < math.inf:
        raise ValueError(f"'scale_adjustment' is {factor}")
    return Depth(str(entry["path"]), entry.get("mask_path"), factor)


def _viewpoint(entry: dict[str, Any], width: int, height: int) -> Viewpoint:
    form = entry.get("intrinsics_format", "ndc_norm_image_bounds")
    units = {
        "ndc_isotropic": torch.ones(2, dtype=torch.float64),
        # Both sides span [-1, 1].
        "ndc_norm_image_bounds": torch.tensor([width, height], dtype=torch.float64) / min(width, height),
    }
    if form not in units:
        raise ValueError(f"'intrinsics_format' is '{form}', known are {', '.join(units)}")
    return Viewpoint(
        rotation=_numbers(entry["R"], 3, 3),
        translation=_numbers(entry["T"], 3),
        focal=_numbers(entry["focal_length"], 2) * units[form],
        principal_point=_numbers(entry["principal_point"], 2) * units[form],
    )


def _numbers(value: Any, *shape: int) -> Float64[Tensor, "..."]:
    numbers = torch.tensor(value, dtype=torch.float64)
    if numbers.shape != shape or not numbers.isfinite().all():
        raise ValueError(f"found {value}, expected {' x '.join(map(str, shape))} finite numbers")
    return numbers


def _listed(entry: Any, path: Path) -> Listed:
    """A frame in a list, as [sequence, number, image]."""
    parts = _sequence(entry, path)
    if len(parts) != 3:
        raise ConfigError(f"{path} lists {entry!r}; expected [sequence, number, path of the image]")
    return Listed(str(parts[0]), str(parts[2]))


def _sequence(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{path} lists {value!r}; expected lists of frames")
    return value


def _broken(where: str, what: str, error: Exception) -> ConfigError:
    problem = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
    return ConfigError(f"{where} is no {what} as CO3D has it: {problem}; download it again")
