from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.co3d import Co3d
from datasets.region import region_of_interest
from datasets.views import Views
from tests.datasets.captures import CORNERS, cube_capture
from tests.datasets.captures_co3d import CATEGORY, SEQUENCE, edit_frames, write_co3d

CAPTURE = cube_capture()
AS_IN_FILES = {"up_est_method": "none", "center_est_method": "none"}
TWO = ("10_1_2", "2_30_4")


def reader(root: Path, **options: Any) -> Co3d:
    return Co3d(Co3d.Config(**{"root_dir": str(root), "category": CATEGORY, **options}))


def names(views: Views) -> list[int]:
    """Numbers of the frames."""
    return [int(name[-6:]) for name in views.names]


def in_scene(views: Views, points: np.ndarray) -> np.ndarray:
    """Scene coordinates of points of the files."""
    return np.linalg.solve(views.to_dataset.numpy(), np.column_stack((points, np.ones(len(points)))).T)[:3].T


def test_without_a_set_list_every_so_manieth_frame_is_held_out(tmp_path: Path):
    held = reader(write_co3d(tmp_path, CAPTURE, 2), eval_every=3, n_test_traj_steps=4)
    assert names(held.views("test")) == [0, 3] and names(held.views("train")) == [1, 2, 4, 5]
    path = held.path()
    assert path is not None and len(path) == 4 and not path.is_real
    whole = reader(tmp_path)
    assert whole.views("val") is whole.views("train") and not whole.views("test").is_real


@pytest.mark.parametrize("version, set_list, val", [(1, "train", [0, 3]), (2, "manyview_dev_0", [0])])
def test_set_lists_name_the_frames_of_each_split(tmp_path: Path, version: int, set_list: str, val: list[int]):
    listed = reader(write_co3d(tmp_path, CAPTURE, version), set_list=set_list)
    found = [names(listed.views(split)) for split in ("train", "val", "test")]
    assert found == [[1, 2, 5], val, [0, 3]]


@pytest.mark.parametrize(
    "version, set_list, file",
    [
        (1, "train", "eval_batches_singlesequence.json"),
        (2, "manyview_dev_0", "eval_batches/eval_batches_manyview_dev_0.json"),
    ],
)
def test_targets_of_evaluation_batches_become_the_test(tmp_path: Path, version: int, set_list: str, file: str):
    listed = reader(write_co3d(tmp_path, CAPTURE, version), set_list=set_list, eval_batches=file)
    assert names(listed.views("test")) == [3] and names(listed.views("train")) == [1, 2, 5]


def test_a_split_may_be_trained_on_in_place_of_another(tmp_path: Path):
    listed = reader(write_co3d(tmp_path, CAPTURE, 1), set_list="train", train_split="val", test_split="train")
    assert names(listed.views("train")) == [0, 3] and names(listed.views("test")) == [1, 2, 5]


def test_at_most_so_many_frames_are_taken_evenly(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2)
    assert names(reader(root, max_frames=3).views("train")) == [0, 2, 5]
    listed = reader(root, max_frames=2, set_list="manyview_dev_0")
    assert names(listed.views("train")) == [1, 5] and names(listed.views("test")) == [0, 3]


def test_frames_without_camera_image_or_object_are_left_out_and_told(tmp_path: Path, caplog):
    root = write_co3d(tmp_path, CAPTURE, 2)

    def spoil(frames):
        frames[1]["viewpoint"] = None
        frames[2]["mask"]["mass"] = 0.5

    edit_frames(root, spoil)
    (root / CATEGORY / SEQUENCE / "images" / "frame000004.png").unlink()
    assert names(reader(root).views("train")) == [0, 3, 5]
    first = f"left out, first {root}/{CATEGORY}/frame_annotations.jgz, {SEQUENCE} frame"
    assert f"1 of 6 frames are without a camera and {first} 1" in caplog.text
    assert f"1 of 5 images are missing and {first} 4" in caplog.text
    assert f"1 of 4 masks are empty and {first} 2" in caplog.text


def test_a_name_that_yaml_took_for_a_number_is_understood(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2, ("34_1479_4753", "2_30_4"))
    views = reader(root, sequence="3414794753").views("train")
    assert views.scene is None and views.scene_names == ["34_1479_4753"]


def test_several_sequences_are_told_apart_and_share_their_coordinates(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2, TWO)
    views = reader(root, sequence="all", eval_every=5, box_crop=False).views("train")
    assert views.scene.tolist() == [0] * 4 + [1] * 5  # held out are rows 0, 5 and 10 of 12
    assert views.names[0] == "10_1_2/frame000001" and views.names[-1] == "2_30_4/frame000005"
    assert views.points is None and views.scene_names == list(TWO)
    rays = views.draw(torch.tensor([3, 8]), torch.zeros(2, 2).long(), torch.zeros(2, 3)).rays
    assert rays.scene.tolist() == [0, 1] and rays.time.tolist() == [2, 2.5]
    origins = views.cameras.pose[:, :, 3].double() @ views.to_dataset[:3, :3].T + views.to_dataset[:3, 3]
    expected = [CAPTURE.to_world(number)[:3, 3] for number in names(views)]
    np.testing.assert_allclose(origins, expected, atol=1e-5)
    test = reader(root, sequence=list(TWO), eval_every=5).views("test")
    assert test.scene.tolist() == [0, 0, 1]


def test_the_order_of_several_sequences_is_that_asked_for(tmp_path: Path):
    views = reader(write_co3d(tmp_path, CAPTURE, 2, TWO), sequence=["2_30_4", "10_1_2"]).views("train")
    assert views.names[0] == "2_30_4/frame000000" and views.scene.tolist() == [0] * 6 + [1] * 6
    assert views.scene_names == ["2_30_4", "10_1_2"]


def test_the_path_of_several_sequences_is_that_of_the_first(tmp_path: Path):
    many = reader(write_co3d(tmp_path, CAPTURE, 2, TWO), sequence="all", n_test_traj_steps=3)
    path = many.views("test")
    assert not path.is_real and path.scene.tolist() == [0, 0, 0] and path.scene_names == list(TWO)
    assert path.time.tolist() == [0, 1.25, 2.5]


def test_the_region_of_several_sequences_is_the_unit_ball(tmp_path: Path):
    # The cube twice: the region of both is that of one.
    root = write_co3d(tmp_path, CAPTURE, 2, TWO)
    views = reader(root, sequence="all", box_crop=False).views("train")
    one = reader(root, sequence=TWO[0], box_crop=False, use_masks=False).views("train")
    torch.testing.assert_close(views.to_dataset, one.to_dataset)
    center, radius = region_of_interest(views)
    assert center.abs().max() < 1 and 0.3 < radius < 3


def test_frames_carry_their_time(tmp_path: Path):
    assert reader(write_co3d(tmp_path, CAPTURE, 2)).views("train").time.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


def test_a_crop_sees_what_the_whole_photograph_sees_there(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 1)
    whole = reader(root, box_crop=False, use_depth=True, **AS_IN_FILES).views("train")
    cropped = reader(root, use_depth=True, **AS_IN_FILES).views("train")
    for view in range(len(CAPTURE)):
        mask = CAPTURE.photographs[view][:, :, 3] > 0
        left, top = (int(np.flatnonzero(mask.any(axis))[0]) for axis in (0, 1))
        width, height = (int(mask.any(axis).sum()) for axis in (0, 1))
        # 15 % on each side, rounded, within the image.
        low = [max(round(left - 0.15 * width), 0), max(round(top - 0.15 * height), 0)]
        high = [left + 1.15 * width, top + 1.15 * height]
        high = [min(round(edge), size) for edge, size in zip(high, CAPTURE.size[view], strict=True)]
        assert cropped.size(view) == (high[0] - low[0], high[1] - low[1]) != CAPTURE.size[view]
        part = cropped.image(view, torch.zeros(3))
        same = whole.draw(part.rays.view, part.rays.pixel + torch.tensor(low), torch.zeros(len(part.rays), 3))
        torch.testing.assert_close(part.rays.directions, same.rays.directions, rtol=0, atol=1e-6)
        for key in ("color", "mask", "depth"):
            torch.testing.assert_close(getattr(part.target, key), getattr(same.target, key))


def test_boxes_in_the_annotations_win_over_masks(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2)
    edit_frames(root, lambda frames: [f["mask"].update(bounding_box_xywh=[10, 12, 20, 10]) for f in frames])
    for use_masks in (True, False):
        views = reader(root, box_crop_context=0.2, use_masks=use_masks, **AS_IN_FILES).views("train")
        assert views.size(0) == (24, 12) and views.has_mask == use_masks
        np.testing.assert_allclose(views.cameras.center[0], CAPTURE.intrinsics[0][:2, 2] - [8, 11], rtol=1e-6)


def test_large_photographs_are_shrunk_to_the_longest_side(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2)
    views = reader(root, img_max_side=40, box_crop=False, use_depth=True, **AS_IN_FILES).views("train")
    assert [views.size(view) for view in range(6)] == [(40, 30), (40, 30), (40, 40), (40, 30), (30, 40), (40, 30)]
    np.testing.assert_allclose(views.cameras.focal[0], np.diag(CAPTURE.intrinsics[0])[:2] * 40 / 48, rtol=1e-6)
    np.testing.assert_allclose(views.cameras.focal[2], np.diag(CAPTURE.intrinsics[2])[:2], rtol=1e-6)
    assert views.depth.shape == views.alpha.shape


def test_masks_are_probabilities_with_a_threshold(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2)
    for path in (root / CATEGORY / SEQUENCE / "masks").iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask > 0, 200, 60).astype(np.uint8)).save(path)
    options = {"box_crop": False, **AS_IN_FILES}
    assert reader(root, **options).views("train").alpha.unique().tolist() == [0, 255]
    assert reader(root, mask_threshold=0, **options).views("train").alpha.unique().tolist() == [60, 200]
    assert reader(root, mask_threshold=0.9, **options).views("train").alpha.unique().tolist() == [0]
    assert not reader(root, use_masks=False, **options).views("train").has_mask


@pytest.mark.parametrize("apply_mask", [True, False])
def test_depths_become_distances_along_rays_in_the_scene(tmp_path: Path, apply_mask: bool):
    views = reader(write_co3d(tmp_path, CAPTURE, 2), box_crop=False, use_depth=True, apply_mask=apply_mask).views(
        "train"
    )
    scale = np.cbrt(np.linalg.det(views.to_dataset[:3, :3].numpy()))
    expected = np.concatenate([distance.reshape(-1) for distance in CAPTURE.distances])
    # Half precision has eleven bits.
    np.testing.assert_allclose(scale * views.depth.numpy(), expected, rtol=1e-3)
    assert (views.depth == 0).any()


def test_depths_beside_the_object_are_hidden_with_everything_else(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2)
    folder = root / CATEGORY / SEQUENCE
    everywhere = np.full((36, 48), 1.5, dtype=np.float16)
    Image.fromarray(everywhere.view(np.uint16)).save(folder / "depths" / "frame000000.png")
    edit_frames(root, lambda frames: [frame["depth"].pop("mask_path") for frame in frames])
    for apply_mask in (True, False):
        views = reader(root, box_crop=False, use_depth=True, apply_mask=apply_mask, **AS_IN_FILES).views("train")
        target = views.image(0, torch.zeros(3)).target
        assert ((target.depth > 0) == (target.mask > 0)).all() == apply_mask


def test_frames_without_a_depth_map_have_unknown_depth(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2)
    edit_frames(root, lambda frames: frames[0].update(depth=None))
    views = reader(root, use_depth=True).views("train")
    assert not views.image(0, torch.zeros(3)).target.depth.any() and views.image(1, torch.zeros(3)).target.depth.any()
    assert reader(root).views("train").depth is None


def test_masks_make_the_object_fill_the_unit_ball(tmp_path: Path):
    views = reader(write_co3d(tmp_path, CAPTURE, 2), use_depth=True).views("train")
    reach = np.linalg.norm(in_scene(views, CORNERS), axis=1)
    assert 0.6 < reach.max() < 1.3
    center, radius = region_of_interest(views)
    assert center.abs().max() + radius == pytest.approx(1, abs=0.15)


def test_the_point_cloud_comes_into_the_scene(tmp_path: Path):
    views = reader(write_co3d(tmp_path, CAPTURE, 2)).views("train")
    np.testing.assert_allclose(views.points.position.numpy(), in_scene(views, CORNERS), atol=1e-5)
    assert len(views.points.view) == 0


def test_a_point_cloud_that_is_missing_is_told(tmp_path: Path, caplog):
    root = write_co3d(tmp_path, CAPTURE, 2)
    (root / CATEGORY / SEQUENCE / "pointcloud.ply").unlink()
    assert reader(root).views("train").points is None
    assert "pointcloud.ply is missing; the scene is placed without its sparse points" in caplog.text
