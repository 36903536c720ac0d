"""`cameras.json`: the cameras of a run's photographs, in the coordinates of its meshes.

The layout is that of nerfstudio's `transforms.json`, with what it lacks: `coordinates` says which ones these are,
`scene_to_dataset` is the similarity between the two that there are, and `split` says what a photograph served for.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.cameras import Cameras
from datasets.frames import FISHEYE, PERSPECTIVE
from datasets.views import Views
from utils.similarity import IDENTITY, rotation_of

CAMERAS = "cameras.json"
"""Name of the file, beside the meshes."""
Coordinates = Literal["dataset", "scene"]


def write_cameras(
    path: Path, split: str, views: Views, coordinates: Coordinates, to_dataset: Float64[Tensor, "4 4"]
) -> Path:
    """Puts the cameras of a split into the file; those of other splits stay in it.

    Args:
        path: of the file, which need not exist.
        split: as data sets call it.
        views: its cameras, in scene coordinates.
        coordinates: what the file shall hold.
        to_dataset: [4, 4] scene to dataset.

    Returns:
        `path`.
    """
    others = []
    if path.is_file():
        restate_cameras(path, coordinates)
        others = [frame for frame in json.loads(path.read_text())["frames"] if frame["split"] != split]
    similarity = to_dataset if coordinates == "dataset" else IDENTITY
    cameras = views.cameras.to("cpu")
    frames = [_frame(cameras, row, name, split, similarity) for row, name in enumerate(views.names)]
    _write(path, coordinates, to_dataset, others + frames)
    return path


def restate_cameras(path: Path, coordinates: Coordinates) -> None:
    """Brings the file, if there is one, to other coordinates."""
    if not path.is_file():
        return
    content = json.loads(path.read_text())
    if content["coordinates"] == coordinates:
        return
    to_dataset = torch.tensor(content["scene_to_dataset"], dtype=torch.float64)
    similarity = to_dataset if coordinates == "dataset" else torch.linalg.inv(to_dataset)
    for frame in content["frames"]:
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
        frame["transform_matrix"] = _moved(pose, similarity)
    _write(path, coordinates, to_dataset, content["frames"])


def _frame(cameras: Cameras, row: int, name: str, split: str, similarity: Float64[Tensor, "4 4"]) -> dict[str, Any]:
    pose = IDENTITY.clone()
    pose[:3] = cameras.pose[row]
    size, focal, center = (part[row].tolist() for part in (cameras.size, cameras.focal, cameras.center))
    return {
        "file_path": name,
        "split": split,
        **dict(zip(("w", "h", "fl_x", "fl_y", "cx", "cy"), (*size, *focal, *center), strict=True)),
        **_lens(cameras, row),
        "transform_matrix": _moved(pose, similarity),
    }


def _lens(cameras: Cameras, row: int) -> dict[str, Any]:
    if cameras.distortion is None:
        return {"camera_model": "PINHOLE"}
    is_fisheye = cameras.is_fisheye is not None and bool(cameras.is_fisheye[row])
    model, names = ("OPENCV_FISHEYE", FISHEYE) if is_fisheye else ("FULL_OPENCV", PERSPECTIVE)
    return {"camera_model": model, **dict(zip(names, cameras.distortion[row].tolist(), strict=False))}


def _moved(pose: Float64[Tensor, "4 4"], similarity: Float64[Tensor, "4 4"]) -> list[list[float]]:
    """A pose after a similarity: a camera that is as large as before, so the matrix stays rigid."""
    moved = similarity @ pose
    moved[:3, :3] = rotation_of(similarity) @ pose[:3, :3]
    return moved.tolist()


def _write(path: Path, coordinates: Coordinates, to_dataset: Float64[Tensor, "4 4"], frames: list[Any]) -> None:
    head = json.dumps({"coordinates": coordinates, "scene_to_dataset": to_dataset.tolist()})
    lines = ",\n".join(json.dumps(frame) for frame in frames)
    path.write_text(f'{head[:-1]}, "frames": [\n{lines}\n]}}\n')
