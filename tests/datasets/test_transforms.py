import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from datasets.transforms import Transforms
from tests.datasets.captures import CORNERS, CubeCapture, cube_capture, write_blender, write_masks, write_transforms
from utils.registry import ConfigError

AS_IN_FILE = {"up_est_method": "none", "center_est_method": "none"}
CAPTURE = cube_capture()


def reader(root: Path, **options: Any) -> Transforms:
    return Transforms(Transforms.Config(root_dir=str(root), **options))


def edit(root: Path, change: Any) -> None:
    """Applies `change` to the content of transforms.json."""
    path = root / "transforms.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        reader(root, **options).views("train")
    message = str(caught.value)
    assert "\n" not in message
    return message


def world_origins(views) -> torch.Tensor:
    """Camera centres in dataset coordinates."""
    return views.cameras.pose[:, :, 3].double() @ views.to_dataset[:3, :3].T + views.to_dataset[:3, 3]


def expected_origins(capture: CubeCapture = CAPTURE) -> torch.Tensor:
    return torch.from_numpy(np.stack([capture.to_world(view)[:3, 3] for view in range(len(capture))]))


def test_where_nothing_is_estimated_the_scene_is_the_file(tmp_path: Path):
    views = reader(write_transforms(tmp_path, CAPTURE), **AS_IN_FILE).views("train")
    pose = torch.from_numpy(np.stack([CAPTURE.to_world(view)[:3] for view in range(len(CAPTURE))])).float()
    torch.testing.assert_close(views.cameras.pose, pose)
    torch.testing.assert_close(views.to_dataset, torch.eye(4, dtype=torch.float64))
    assert views.alpha is None and views.points is None


@pytest.mark.parametrize("options", [{}, {"center_est_method": "lookat"}, {"up_est_method": "none"}])
def test_dataset_coordinates_are_those_of_the_file(tmp_path: Path, options: dict):
    views = reader(write_transforms(tmp_path, CAPTURE), **options).views("train")
    torch.testing.assert_close(world_origins(views), expected_origins(), rtol=0, atol=1e-5)


def test_dataset_coordinates_are_those_before_nerfstudio_turned_and_scaled_them(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE, n_channels=4)
    turn = torch.tensor([[0.0, 1.0, 0.0, 0.3], [1.0, 0.0, 0.0, -0.2], [0.0, 0.0, -1.0, 0.1]], dtype=torch.float64)
    edit(root, lambda content: content.update(applied_transform=turn.tolist(), applied_scale=0.5, scale=0.33))
    views = reader(root).views("train")
    # What the file says is half of the turned original.
    again = 0.5 * (world_origins(views) @ turn[:, :3].T + turn[:, 3])
    torch.testing.assert_close(again, expected_origins(), rtol=0, atol=1e-5)


def test_photographs_are_sorted_by_name(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    edit(root, lambda content: content["frames"].reverse())
    views = reader(root, **AS_IN_FILE).views("train")
    assert views.names == CAPTURE.names
    torch.testing.assert_close(world_origins(views), expected_origins(), rtol=0, atol=1e-5)


def test_shared_distortion_bends_the_rays(tmp_path: Path):
    lens = {"camera_model": "OPENCV", "k1": 0.1, "k2": -0.02, "p1": 0.001, "p2": -0.002}
    views = reader(write_transforms(tmp_path, CAPTURE, **lens)).views("train")
    torch.testing.assert_close(
        views.cameras.distortion, torch.tensor([0.1, -0.02, 0.001, -0.002, 0, 0, 0, 0]).expand(len(CAPTURE), 8)
    )
    straight = reader(write_transforms(tmp_path, CAPTURE)).views("train").image(0, torch.zeros(3)).rays
    bent = views.image(0, torch.zeros(3)).rays
    assert not torch.allclose(bent.directions[0], straight.directions[0], atol=1e-4)
    middle = 18 * 48 + 25
    torch.testing.assert_close(bent.directions[middle], straight.directions[middle], rtol=0, atol=1e-4)


def test_masks_are_found_by_their_path_and_place_the_scene(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    write_masks(root / "masks", CAPTURE)
    edit(
        root, lambda content: [frame.update(mask_path=f"masks/{frame['file_path'][7:]}") for frame in content["frames"]]
    )
    views = reader(root).views("train")
    expected = np.concatenate([pixels[:, :, 3].reshape(-1) for pixels in CAPTURE.photographs])
    np.testing.assert_array_equal(views.alpha.numpy(), expected)
    # Corners of the cube, in the scene, fill the unit ball about.
    corners = np.linalg.solve(views.to_dataset.numpy(), np.column_stack((CORNERS, np.ones(8))).T)[:3].T
    reach = np.linalg.norm(corners, axis=1)
    assert 0.6 < reach.max() < 1.3
    torch.testing.assert_close(world_origins(views), expected_origins(), rtol=0, atol=1e-5)


def test_sparse_points_of_nerfstudio_come_into_the_scene(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    colors = np.arange(32, dtype=np.uint8).reshape(8, 4)
    trimesh.PointCloud(CORNERS, colors=colors).export(root / "points.ply")
    edit(root, lambda content: content.update(ply_file_path="points.ply"))
    views = reader(root).views("train")
    points = views.points
    again = points.position.double() @ views.to_dataset[:3, :3].T + views.to_dataset[:3, 3]
    torch.testing.assert_close(again, torch.from_numpy(CORNERS), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(points.color.numpy(), colors[:, :3])
    assert len(points.view) == 0 and points.error is None


def test_sparse_points_that_are_missing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = write_transforms(tmp_path, CAPTURE)
    edit(root, lambda content: content.update(ply_file_path="points.ply"))
    assert reader(root).views("train").points is None
    assert f"{root}/points.ply is missing; the scene is placed without its sparse points" in caplog.text


def test_images_that_are_missing_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = write_transforms(tmp_path, CAPTURE)
    (root / "images" / "002.png").unlink()
    views = reader(root, **AS_IN_FILE).views("train")
    assert views.names == [name for name in CAPTURE.names if name != "002"]
    assert "1 of 6 images are missing and left out, first" in caplog.text and "(images/002.png)" in caplog.text


def test_held_out_photographs_are_tested_and_a_path_is_filmed(tmp_path: Path):
    held = reader(write_transforms(tmp_path, CAPTURE), eval_every=3, n_test_traj_steps=4)
    assert held.views("test").names == ["000", "003"] and len(held.views("train")) == 4
    path = held.path()
    assert path is not None and len(path) == 4 and not path.is_real


def test_reading_twice_gives_the_same(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE, n_channels=4)
    one, other = (reader(root).views("train") for _ in range(2))
    assert torch.equal(one.cameras.pose, other.cameras.pose) and torch.equal(one.to_dataset, other.to_dataset)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda c: c.update(applied_scale=0), "transforms.json: 'applied_scale' is 0; expected a number between 0 and"),
        (lambda c: c.update(applied_transform=[[1]]), "transforms.json: applied_transform has shape (1, 1)"),
        (lambda c: c.update(ply_file_path="../p.ply"), "path '../p.ply' leaves the data folder"),
        (lambda c: c["frames"][1].update(w=47), "frame 1 (images/001.png) says w, h = 47, 36"),
        (lambda c: c["frames"][1].update(fl_x=4000.0), "frame 1 (images/001.png): focal lengths 4000, 58 px in an"),
        (lambda c: c["frames"][1]["transform_matrix"][0].__setitem__(3, math.nan), "transform_matrix holds NaN"),
        (lambda c: c["frames"][1].update(mask_path="m.png"), "m.png does not exist; it is the mask of"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, change: Any, expected: str):
    root = write_transforms(tmp_path, CAPTURE)
    edit(root, change)
    assert expected in error_of(root)


def test_points_that_are_none_are_named(tmp_path: Path):
    root = write_transforms(tmp_path, CAPTURE)
    edit(root, lambda content: content.update(ply_file_path="points.ply"))
    (root / "points.ply").write_text("ply?")
    assert "points.ply cannot be read as a point cloud" in error_of(root)
    trimesh.creation.box().export(root / "points.ply")
    assert "points.ply is no cloud of finite points" in error_of(root)


def test_the_wrong_level_names_the_right_folder(tmp_path: Path):
    root = write_transforms(tmp_path / "fox", CAPTURE)
    for wrong in (tmp_path, root / "images"):
        assert f"holds no transforms.json, but {root} does; set it to that folder" in error_of(wrong)


def test_photographs_alone_lead_to_the_script_that_finds_cameras(tmp_path: Path):
    (write_transforms(tmp_path, CAPTURE) / "transforms.json").unlink()
    assert f"python scripts/imgs2poses.py {tmp_path}" in error_of(tmp_path)


def test_a_set_with_splits_of_its_own_leads_to_the_other_reader(tmp_path: Path):
    write_blender(tmp_path, CAPTURE)
    assert "set dataset.name=blender" in error_of(tmp_path)
