"""Depth and normal maps beside the cube, in every frame and format, come out as distances and normals of the scene."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.blender import Blender
from datasets.normal_maps import read_normals
from datasets.transforms import Transforms
from datasets.views import Views
from tests.datasets.captures import COLORS, cube_capture, write_blender, write_transforms
from utils.registry import ConfigError

CAPTURE = cube_capture()
FACES = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], dtype=float)
AS_IN_FILE = {"up_est_method": "none", "center_est_method": "none"}


def depth_of(view: int) -> np.ndarray:
    """Depths along the optical axis, which is the third row of the rotation, 0 beside the cube."""
    _, directions = CAPTURE.directions(view)
    return CAPTURE.distances[view] * (directions @ CAPTURE.rotation[view][2])


def normal_of(view: int) -> np.ndarray:
    """World normals of the cube, told by the colours of its faces; 0 beside it."""
    pixels = CAPTURE.photographs[view]
    same = (pixels[:, :, None, :3] == COLORS).all(-1)  # [H, W, 6]
    return (same[..., None] * FACES).sum(2)


def write_maps(root: Path, frame: str = "camera-opencv", ending: str = ".npy", **shared: Any) -> None:
    """Depths in millimetres as PNG of 16 bits; normals."""
    for path in root.glob("transforms*.json"):
        content = json.loads(path.read_text()) | shared
        for view, entry in enumerate(content["frames"]):
            name = CAPTURE.names[view]
            entry |= {"depth_file_path": f"{name}-depth.png", "normal_file_path": f"{name}-normal{ending}"}
        path.write_text(json.dumps(content))
    for view, name in enumerate(CAPTURE.names):
        Image.fromarray((1000 * depth_of(view)).round().astype(np.uint16)).save(root / f"{name}-depth.png")
        normal = normal_of(view)
        if frame != "world":
            normal = normal @ CAPTURE.rotation[view].T * (1 if frame == "camera-opencv" else np.array([1, -1, -1]))
        coded = (normal + 1) / 2
        path = root / f"{name}-normal{ending}"
        if ending == ".npy":
            # One array as it is, one as MonoSDF has it, by turns.
            np.save(path, normal if view % 2 else coded.transpose(2, 0, 1))
        else:
            cv2.imwrite(str(path), (65535 * coded[:, :, ::-1]).round().astype(np.uint16))


def assert_cube(views: Views, atol: float) -> None:
    """Distances, in dataset units, and normals, turned to the dataset, are those that the capture knows."""
    to_dataset = torch.eye(4, dtype=torch.float64) if views.to_dataset is None else views.to_dataset
    scale = torch.linalg.det(to_dataset[:3, :3]) ** (1 / 3)
    distance = torch.from_numpy(np.concatenate([one.reshape(-1) for one in CAPTURE.distances]))
    normal = torch.from_numpy(np.concatenate([normal_of(view).reshape(-1, 3) for view in range(len(CAPTURE))]))
    torch.testing.assert_close(views.depth.double() * scale, distance, rtol=0, atol=1e-3)
    torch.testing.assert_close(views.normal.double() @ (to_dataset[:3, :3] / scale).T, normal, rtol=0, atol=atol)


@pytest.mark.parametrize("frame", ["camera-opencv", "camera-opengl", "world"])
@pytest.mark.parametrize("ending", [".npy", ".png"])
def test_maps_in_any_frame_are_those_of_the_scene(tmp_path: Path, frame: Any, ending: str):
    root = write_transforms(tmp_path, CAPTURE)
    write_maps(root, frame, ending)
    options: dict[str, Any] = {"use_depth": True, "use_normals": True, "normal_frame": frame}
    as_in_file = Transforms(Transforms.Config(root_dir=str(root), **AS_IN_FILE, **options)).views("train")
    assert_cube(as_in_file, 1e-4)
    # Placed anew the scene is turned, moved and scaled, and with masks once more.
    write_transforms(root, CAPTURE, n_channels=4)
    write_maps(root, frame, ending)
    placed = Transforms(Transforms.Config(root_dir=str(root), **options)).views("train")
    assert not torch.allclose(placed.depth, as_in_file.depth, atol=0.1)
    assert_cube(placed, 1e-4)


def test_maps_of_a_blender_scene_are_read(tmp_path: Path):
    root = write_blender(tmp_path, CAPTURE)
    write_maps(root, "world")
    config = Blender.Config(scene="cube", root_dir=str(root), use_depth=True, use_normals=True, normal_frame="world")
    assert_cube(Blender(config).views("test"), 1e-4)


def test_units_are_those_of_the_file_first_and_count_before_nerfstudio_scaled_the_world(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    write_maps(root, depth_unit_scale_factor=0.002, applied_scale=0.5)
    options: dict[str, Any] = {"use_depth": True, "depth_unit_scale_factor": 7.0, **AS_IN_FILE}
    views = Transforms(Transforms.Config(root_dir=str(root), **options)).views("train")
    # Twice the number of millimetres, in a world that is half the size.
    distance = torch.from_numpy(np.concatenate([one.reshape(-1) for one in CAPTURE.distances]))
    torch.testing.assert_close(views.depth.double(), 2 * 0.5 * distance, rtol=0, atol=1e-3)


def test_maps_follow_their_images_to_other_sizes(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    write_maps(root)
    options: dict[str, Any] = {"use_depth": True, "use_normals": True, "img_downscale": 2, **AS_IN_FILE}
    views = Transforms(Transforms.Config(root_dir=str(root), **options)).views("train")
    assert len(views.depth) == len(views.normal) == len(views.color)
    is_known = views.depth > 0
    torch.testing.assert_close(views.normal.norm(dim=1), is_known.float())


def test_targets_tell_view_distance_normal_and_the_angle_to_the_optical_axis(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    write_maps(root)
    options: dict[str, Any] = {"use_depth": True, "use_normals": True, **AS_IN_FILE}
    views = Transforms(Transforms.Config(root_dir=str(root), **options)).views("train")
    target = views.image(4, torch.zeros(3)).target
    assert (target.view == 4).all()
    along_axis = torch.from_numpy(depth_of(4)).reshape(-1)
    torch.testing.assert_close((target.depth * target.cosine).double(), along_axis, rtol=0, atol=1e-3)
    torch.testing.assert_close(target.normal.double(), torch.from_numpy(normal_of(4)).reshape(-1, 3), atol=1e-4, rtol=0)


def test_maps_are_left_alone_unless_asked_for(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    write_maps(root)
    views = Transforms(Transforms.Config(root_dir=str(root))).views("train")
    assert views.depth is None and views.normal is None


@pytest.mark.parametrize(("option", "key"), [("use_depth", "depth_file_path"), ("use_normals", "normal_file_path")])
def test_maps_that_nobody_names_are_an_error(tmp_path: Path, option: str, key: str):
    root = write_transforms(tmp_path, CAPTURE)
    with pytest.raises(ConfigError, match=f"no key '{key}'; set dataset.{option}=false"):
        Transforms(Transforms.Config(root_dir=str(root), **{option: True})).views("train")


def test_broken_maps_are_named(tmp_path: Path):
    turn = torch.eye(3)
    np.save(tmp_path / "flat.npy", np.zeros((4, 4)))
    np.save(tmp_path / "zero.npy", np.full((4, 4, 3), 0.5))
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "text.npy").write_text("normals")
    for name, expected in (
        ("none.npy", "does not exist; .* set dataset.use_normals=false"),
        ("flat.npy", r"has shape \(4, 4\)"),
        ("zero.npy", "holds no vectors of length 1"),
        ("grey.png", "is no colour image"),
        ("text.npy", "cannot be read as an array"),
    ):
        with pytest.raises(ConfigError, match=expected):
            read_normals(tmp_path / name, turn)
    root = write_transforms(tmp_path / "cube", CAPTURE)
    write_maps(root, depth_unit_scale_factor=-1)
    with pytest.raises(ConfigError, match="'depth_unit_scale_factor' is -1; expected more than 0"):
        Transforms(Transforms.Config(root_dir=str(root), use_depth=True)).views("train")
