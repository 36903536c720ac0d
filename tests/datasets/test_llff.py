from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.llff import Llff
from datasets.region import region_of_interest
from datasets.views import Views
from tests.datasets.captures import CENTER, CubeCapture, cube_capture, write_blender, write_images, write_llff
from utils.images import shrink
from utils.registry import ConfigError

AROUND = cube_capture(((48, 36),) * 6, is_plain=True)


def ahead(n_views: int = 9) -> CubeCapture:
    """Cameras on a wavy line that all look along the same axis, the cube 3 away."""
    capture = cube_capture(((48, 36),) * n_views, is_plain=True)
    down, forward = np.array([0.1, 0.3, -1.0]), np.array([1.0, 2.0, 0.7])
    forward /= np.linalg.norm(forward)
    right = np.cross(down, forward)
    right /= np.linalg.norm(right)
    rotation = np.stack((right, np.cross(forward, right), forward))
    for view in range(n_views):
        position = CENTER - 3 * forward + (view / 4 - 1) * right + 0.3 * np.sin(view) * rotation[1]
        capture.rotation[view], capture.translation[view] = rotation, -rotation @ position
    return capture


def reader(root: Path, **options: Any) -> Llff:
    return Llff(Llff.Config(**{"root_dir": str(root), "eval_every": None, **options}))


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        reader(root, **options).views("train")
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_file(root: Path, change: Any) -> None:
    path = root / "poses_bounds.npy"
    rows = np.load(path)
    change(rows)
    np.save(path, rows)


def forward_views(tmp_path: Path, **options: Any) -> Views:
    return reader(write_llff(tmp_path, ahead()), **options).views("train")


def test_cameras_that_look_the_same_way_look_along_y_with_z_up(tmp_path: Path):
    pose = forward_views(tmp_path).cameras.pose
    forward, up = -pose[:, :, 2], pose[:, :, 1]
    assert forward[:, 0].abs().max() < 1e-5 and (forward[:, 1] > 0.99).all()
    assert (up[:, 2] > 0.99).all()


def test_the_unit_ball_begins_at_the_nearest_depth_and_ends_at_the_farthest(tmp_path: Path):
    root = write_llff(tmp_path, ahead())
    change_file(root, lambda rows: rows[:, -2:].__setitem__(slice(None), (2.5, 4.5)))
    views = reader(root).views("train")
    # Half of the two between them is the unit.
    scale = np.cbrt(np.linalg.det(views.to_dataset[:3, :3].numpy()))
    assert scale == pytest.approx(1, rel=1e-6)
    torch.testing.assert_close(views.bounds, torch.tensor([[2.5, 4.5]]).expand(9, 2))
    middle = views.cameras.pose[:, :, 3].mean(0)
    np.testing.assert_allclose(middle, [0, -3.5, 0], atol=1e-5)


def test_in_a_deep_scene_it_ends_before_that_and_no_camera_is_in_its_box(tmp_path: Path):
    root = write_llff(tmp_path, ahead())
    change_file(root, lambda rows: rows[:, -2:].__setitem__(slice(None), (1, 100)))
    views = reader(root).views("train")
    near, far = views.bounds[0].tolist()
    depth = -views.cameras.pose[:, 1, 3].mean().item()
    assert depth - 1 == pytest.approx(near, rel=1e-5) and far > depth + 10
    assert (views.cameras.pose[:, 1, 3] < -1.1).all()


def test_what_is_known_of_depths_decides_the_box(tmp_path: Path):
    center, radius = region_of_interest(forward_views(tmp_path))
    # Here the view of a lens ends with the outermost rays.
    assert center.norm() < 0.1 and radius == pytest.approx(1, rel=0.1)


def test_cameras_around_an_object_look_at_the_origin(tmp_path: Path):
    views = reader(write_llff(tmp_path, AROUND)).views("train")
    center, radius = region_of_interest(views)
    assert center.norm() < 0.1 and radius == pytest.approx(1, rel=0.05)


def test_photographs_that_were_shrunk_beforehand_are_taken(tmp_path: Path):
    root = write_llff(tmp_path, AROUND)
    small = cube_capture(((24, 18),) * 6)
    small.photographs = [shrink(pixels, 24, 18)[:, :, :3] for pixels in AROUND.photographs]
    write_images(root / "images_2", small)
    prepared, shrunk = reader(root, img_downscale=2).views("train"), reader(root, img_downscale=3).views("train")
    assert prepared.size(0) == (24, 18) and shrunk.size(0) == (16, 12)
    np.testing.assert_allclose(prepared.cameras.focal[1], [28, 28], rtol=1e-6)
    np.testing.assert_array_equal(prepared.color.numpy(), np.concatenate([p.reshape(-1, 3) for p in small.photographs]))
    change_file(root, lambda rows: rows.reshape(-1)[4:].__setitem__(slice(0, 1), 100))
    assert "row 0: the photograph is 24x18, but its camera was estimated for 48x100 shrunk by 2" in error_of(
        root, img_downscale=2
    )


def test_every_eighth_photograph_is_held_out_unless_told_otherwise(tmp_path: Path):
    held = Llff(Llff.Config(root_dir=str(write_llff(tmp_path, ahead())), n_test_traj_steps=5))
    assert held.views("test").names == ["000", "008"] and len(held.views("train")) == 7
    path = held.path()
    assert path is not None and (-path.cameras.pose[:, 1, 2] > 0.8).all()


def test_places_may_be_kept_as_in_the_file(tmp_path: Path):
    views = forward_views(tmp_path, center_est_method="none", up_est_method="none")
    torch.testing.assert_close(views.to_dataset, torch.eye(4, dtype=torch.float64))
    np.testing.assert_allclose(views.cameras.pose[2], ahead().to_world(2)[:3], atol=1e-6)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda rows: rows[1].__setitem__(15, -1), "row 1: depths from -1 to 6; expected 0 < nearest < farthest"),
        (lambda rows: rows[1].__setitem__(16, 1), "row 1: depths from 1.5 to 1;"),
        (
            lambda rows: rows[1].__setitem__(4, 0),
            "row 1: height, width, focal length [0.0, 48.0, 56.0]; expected",
        ),
        (lambda rows: rows[1].__setitem__(0, 7), "row 1: the pose is not rigid"),
        (lambda rows: rows[1].__setitem__(0, np.nan), "expected rows of 17 finite numbers"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: Any, expected: str):
    root = write_llff(tmp_path, AROUND)
    change_file(root, change)
    message = error_of(root)
    assert message.startswith(f"{root}/poses_bounds.npy") and expected in message


def test_a_file_that_is_no_such_array_is_named(tmp_path: Path):
    path = write_llff(tmp_path, AROUND) / "poses_bounds.npy"
    np.save(path, np.zeros((6, 16)))
    assert f"{path} holds an array of shape (6, 16); expected rows of 17 finite numbers" in error_of(tmp_path)
    path.write_bytes(b"poses")
    assert f"{path} is no array of numbers" in error_of(tmp_path)
    np.save(path, np.array([{}, None]))
    assert f"{path} is no array of numbers" in error_of(tmp_path)


def test_a_photograph_too_few_is_told(tmp_path: Path):
    root = write_llff(tmp_path, AROUND)
    (root / "images" / "003.png").unlink()
    assert f"{root}/images holds 5 images, but {root}/poses_bounds.npy 6 cameras" in error_of(root)


def test_photographs_of_another_size_lead_to_the_divisor(tmp_path: Path):
    root = write_llff(tmp_path, AROUND, folder="images_4")
    assert f"{root}/images does not exist" in error_of(root)
    assert "set dataset.img_downscale to that of images_4" in error_of(root)


def test_the_wrong_folder_is_told(tmp_path: Path):
    root = write_llff(tmp_path / "fern", AROUND)
    assert f"holds no poses_bounds.npy, but {root} does; set it to that folder" in error_of(tmp_path)
    other = write_blender(tmp_path / "lego", AROUND)
    assert "holds no poses_bounds.npy" in error_of(other)
