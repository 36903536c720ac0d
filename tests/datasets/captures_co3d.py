"""The cube in the layout of CO3D: several sequences of a category, and tools to break what was written.

Everything is written with the formulas of the format, without any code of the reader.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from tests.datasets.captures import CORNERS, CubeCapture

CATEGORY, SEQUENCE = "cube", "34_1479_4753"
LEFT_UP_AHEAD = np.diag([-1.0, -1.0, 1.0])
"""From OpenCV's camera frame to PyTorch3D's."""
DEPTH_FACTOR = 2.0


def write_co3d(root: Path, capture: CubeCapture, version: int, sequences: tuple[str, ...] = (SEQUENCE,)) -> Path:
    """All photographs in every sequence; of those, frames 0 and 3 are unseen, and frame 4 belongs to no list."""
    frames = []
    for sequence in sequences:
        folder = root / CATEGORY / sequence
        frames += [_write_frame(folder, capture, view, version) for view in range(len(capture))]
        trimesh.PointCloud(CORNERS).export(folder / "pointcloud.ply")
    write_jgz(root / CATEGORY / "frame_annotations.jgz", frames)
    cloud = "pointcloud.ply"
    write_jgz(
        root / CATEGORY / "sequence_annotations.jgz",
        [
            {"sequence_name": name, "category": CATEGORY, "point_cloud": {"path": f"{CATEGORY}/{name}/{cloud}"}}
            for name in sequences
        ],
    )

    def listed(*numbers: int) -> list[list[Any]]:
        chosen = [frame for frame in frames if frame["frame_number"] in numbers]
        return [[frame["sequence_name"], frame["frame_number"], frame["image"]["path"]] for frame in chosen]

    known, unseen = listed(1, 2, 5), listed(0, 3)
    batches = [[target, *known] for target in unseen if target[1] == 3]
    if version == 1:
        lists = {"train_known": known, "train_unseen": unseen, "test_known": [], "test_unseen": []}
        _write_json(root / CATEGORY / "set_lists.json", lists)
        _write_json(root / CATEGORY / "eval_batches_singlesequence.json", batches)
    else:
        lists = {"train": known, "val": unseen[:1], "test": unseen}
        _write_json(root / CATEGORY / "set_lists" / "set_lists_manyview_dev_0.json", lists)
        _write_json(root / CATEGORY / "eval_batches" / "eval_batches_manyview_dev_0.json", batches)
    return root


def edit_frames(root: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Applies `change` to the content of frame_annotations.jgz."""
    path = root / CATEGORY / "frame_annotations.jgz"
    frames = json.loads(gzip.decompress(path.read_bytes()))
    change(frames)
    write_jgz(path, frames)


def write_jgz(path: Path, content: Any) -> None:
    path.write_bytes(gzip.compress(json.dumps(content).encode()))


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def _write_frame(folder: Path, capture: CubeCapture, view: int, version: int) -> dict[str, Any]:
    """The image, mask and depth map of a frame, and its annotation."""
    name, (width, height), pixels = f"frame{view:06d}", capture.size[view], capture.photographs[view]
    origin, directions = capture.directions(view)
    # Of unit directions, the part along the optical axis turns distances into depths.
    depth = capture.distances[view] * (directions @ capture.rotation[view][2])
    half_floats = (depth / DEPTH_FACTOR).astype(np.float16).view(np.uint16)
    images = {
        "images": Image.fromarray(pixels[:, :, :3]),
        "masks": Image.fromarray(pixels[:, :, 3]),
        "depths": Image.fromarray(half_floats),
        "depth_masks": Image.fromarray(depth > 0),
    }
    for kind, image in images.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        image.save(folder / kind / f"{name}.png")
    path = f"{CATEGORY}/{folder.name}/{{}}/{name}.png"
    mask: dict[str, Any] = {"path": path.format("masks"), "mass": float((pixels[:, :, 3] / 255).sum())}
    return {
        "sequence_name": folder.name,
        "frame_number": view,
        "frame_timestamp": 0.5 * view,
        "image": {"path": path.format("images"), "size": [height, width]},
        "mask": mask,
        "depth": {
            "path": path.format("depths"),
            "scale_adjustment": DEPTH_FACTOR,
            "mask_path": path.format("depth_masks"),
        },
        "viewpoint": _viewpoint(capture, view, version),
        "meta": None,
    }


def _viewpoint(capture: CubeCapture, view: int, version: int) -> dict[str, Any]:
    (fx, _, cx), (_, fy, cy), _ = capture.intrinsics[view]
    size = np.array(capture.size[view])
    # Pixels in half a side: of both sides in version 1, of the shorter one in version 2.
    half = size / 2 if version == 1 else np.full(2, size.min() / 2)
    return {
        "R": (LEFT_UP_AHEAD @ capture.rotation[view]).T.tolist(),
        "T": (LEFT_UP_AHEAD @ capture.translation[view]).tolist(),
        "focal_length": (np.array([fx, fy]) / half).tolist(),
        "principal_point": ((size / 2 - (cx, cy)) / half).tolist(),
        "intrinsics_format": "ndc_norm_image_bounds" if version == 1 else "ndc_isotropic",
    }
