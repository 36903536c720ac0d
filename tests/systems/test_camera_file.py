"""Cameras in cameras.json see what the cameras of the views see."""

import json
from pathlib import Path

import pytest
import torch
from scipy.spatial.transform import Rotation

from datasets.cameras import Cameras
from datasets.frames import Frame
from datasets.views import Views, pixel_offsets
from systems.camera_file import restate_cameras, write_cameras

SCALE, SHIFT = 250.0, torch.tensor([1e6, -2e6, 30.0], dtype=torch.float64)
TURN = torch.from_numpy(Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix())


def similarity() -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = SCALE * TURN, SHIFT
    return matrix


def views(distortion: list[float] | None = None, is_fisheye: bool = False) -> Views:
    turns = torch.from_numpy(Rotation.from_rotvec([[0.1, 0.2, 0.3], [1.0, 0.0, -0.5]]).as_matrix()).float()
    pose = torch.cat((turns, torch.tensor([[[1.0], [2], [3]], [[0.5], [-1], [2]]])), dim=2)
    size = torch.tensor([[40, 30], [20, 24]])
    cameras = Cameras(pose, torch.tensor([[50.0, 51], [30, 30]]), torch.tensor([[20.5, 15], [10, 12]]), size)
    if distortion is not None:
        cameras.distortion = torch.tensor([[0.0] * 8, distortion])
        cameras.is_fisheye = torch.tensor([False, is_fisheye])
    return Views(cameras, ["a", "b"], pixel_offsets(size), torch.zeros(int(size.prod(-1).sum()), 3, dtype=torch.uint8))


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_point_is_seen_at_the_same_pixel_in_dataset_coordinates(tmp_path: Path) -> None:
    seen = views()
    path = write_cameras(tmp_path / "cameras.json", "train", seen, "dataset", similarity())
    content = read(path)
    assert content["coordinates"] == "dataset"
    assert content["scene_to_dataset"] == similarity().tolist()
    point = torch.tensor([0.1, -0.2, 0.3])
    moved = SCALE * TURN @ point.double() + SHIFT
    for row, frame in enumerate(content["frames"]):
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
        torch.testing.assert_close(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3).double(), atol=1e-6, rtol=0)
        x, y, z = pose[:3, :3].T @ (moved - pose[:3, 3])
        expected, depth = seen.cameras.project(torch.tensor([row]), point[None])
        # Pinholes: columns to the right, rows downwards, cameras look along -z.
        pixel = torch.stack((frame["cx"] - frame["fl_x"] * x / z, frame["cy"] + frame["fl_y"] * y / z))
        torch.testing.assert_close(pixel.float(), expected[0], atol=1e-3, rtol=0)
        assert -z == pytest.approx(SCALE * depth.item(), rel=1e-5)
        assert [frame["w"], frame["h"]] == seen.cameras.size[row].tolist()


@pytest.mark.parametrize("is_fisheye", [False, True])
def test_lenses_are_those_that_the_reader_of_the_format_finds(tmp_path: Path, is_fisheye: bool) -> None:
    given = [0.1, -0.02, 0.003, 0.004] + ([0.0] * 4 if is_fisheye else [0.05, 0.01, 0.02, 0.03])
    path = write_cameras(tmp_path / "cameras.json", "train", views(given, is_fisheye), "scene", similarity())
    for row, entry in enumerate(read(path)["frames"]):
        pose = torch.tensor(entry["transform_matrix"], dtype=torch.float64)[:3]
        lens = Frame("here", path, pose, (entry, {}), tmp_path).lens(entry["w"], entry["h"])
        assert lens.is_fisheye == (is_fisheye and row == 1)
        torch.testing.assert_close(lens.distortion, torch.tensor(given if row else [0.0] * 8))


def test_a_split_replaces_itself_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    for split in ("train", "test", "train"):
        write_cameras(path, split, views(), "dataset", similarity())
    assert sorted(frame["split"] for frame in read(path)["frames"]) == ["test", "test", "train", "train"]


def test_other_coordinates_and_back_are_the_same_cameras(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "cameras.json", "train", views(), "scene", similarity())
    before = read(path)
    torch.testing.assert_close(torch.tensor(before["frames"][0]["transform_matrix"])[:3], views().cameras.pose[0])
    restate_cameras(path, "dataset")
    assert read(path)["coordinates"] == "dataset"
    restate_cameras(path, "scene")
    for old, new in zip(before["frames"], read(path)["frames"], strict=True):
        matrices = (torch.tensor(frame.pop("transform_matrix")) for frame in (old, new))
        torch.testing.assert_close(*matrices)
        assert old == new


def test_without_a_file_there_is_nothing_to_restate(tmp_path: Path) -> None:
    restate_cameras(tmp_path / "cameras.json", "scene")
    assert list(tmp_path.iterdir()) == []
