from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.capture import Capture, CaptureConfig
from datasets.lenses import Lens
from datasets.photographs import Shot
from datasets.points import SparsePoints
from datasets.synthetic import look_at_origin, spiral

N_SHOTS, SIZE = 9, 20
TO_DATASET = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))


def disc(n_channels: int) -> Image.Image:
    """A disc in the middle of the image, cut out where there is an alpha channel."""
    row, column = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    pixels = np.full((SIZE, SIZE, n_channels), 100, dtype=np.uint8)
    pixels[:, :, -1] = 255 * (row**2 + column**2 < 25)
    return Image.fromarray(pixels)


def capture(tmp_path: Path, n_channels: int = 3, center=(0.0, 0.0, 0.0), **options) -> Capture:
    """Nine photographs that look at a point, from a distance of 4."""
    keys = {key: options.pop(key) for key in ("points", "fits_masks", "bounds", "lists") if key in options}
    pose = look_at_origin(4 * spiral(N_SHOTS, 0))
    pose[:, :, 3] += torch.tensor(center)
    shots = []
    for row in range(N_SHOTS):
        disc(n_channels).save(tmp_path / f"{row}.png")
        lens = Lens(torch.full((2,), 40.0), torch.full((2,), SIZE / 2))
        shots.append(Shot(f"shot {row}", tmp_path / f"{row}.png", pose[row], lambda w, h, lens=lens: lens))
    config = CaptureConfig(root_dir=str(tmp_path), n_test_traj_steps=5, **options)
    return Capture(shots, config, TO_DATASET, **keys)


def test_every_so_manieth_photograph_is_held_out(tmp_path: Path):
    held = capture(tmp_path, eval_every=4)
    assert held.views("val").names == ["0", "4", "8"]
    assert held.views("train").names == ["1", "2", "3", "5", "6", "7"]
    assert held.views("test").is_real
    path = held.path()
    assert path is not None and len(path) == 5 and not path.is_real and path.size(0) == (SIZE, SIZE)


def test_without_held_out_photographs_all_are_trained_on_and_the_test_is_a_path(tmp_path: Path):
    whole = capture(tmp_path)
    assert len(whole.views("train")) == N_SHOTS
    test = whole.views("test")
    assert len(test) == 5 and not test.is_real and whole.path() is None
    torch.testing.assert_close(test.to_dataset, TO_DATASET)


def test_splits_of_the_same_photographs_are_one_object(tmp_path: Path):
    whole, held = capture(tmp_path), capture(tmp_path, eval_every=3)
    assert whole.views("train") is whole.views("val")
    assert held.views("test") is held.views("val") and held.views("test") is not held.views("train")


def test_observations_follow_their_photographs_and_the_size(tmp_path: Path):
    points = SparsePoints(
        position=torch.zeros(2, 3),
        color=None,
        error=None,
        view=torch.tensor([0, 1, 3, 8]),
        point=torch.tensor([0, 1, 0, 1]),
        pixel=torch.tensor([[0.1, 0.1], [0.2, 0.4], [0.3, 0.3], [0.4, 0.4]]),
    )
    train = capture(tmp_path, points=points, eval_every=4, img_downscale=2).views("train").points
    # Shots 1, 2, 3, 5, 6, 7 became views 0 to 5; images are 10 pixels wide.
    assert train.view.tolist() == [0, 2] and train.point.tolist() == [1, 0] and len(train) == 2
    torch.testing.assert_close(train.pixel, torch.tensor([[2.0, 4.0], [3.0, 3.0]]))


def test_the_region_that_masks_tell_becomes_the_unit_ball(tmp_path: Path):
    center = (0.5, -1.0, 0.25)
    points = SparsePoints.unobserved(torch.tensor([center]))
    fitted = capture(tmp_path, 4, center, points=points, fits_masks=True).views("train")
    loose = capture(tmp_path, 4, center, points=points).views("train")
    # The disc has half the radius of the image, whose half width is a quarter of the focal length: a ball of radius
    # 4 sin(atan(5 / 40)), about 0.5, around the centre.
    distance = fitted.cameras.pose[:, :, 3].norm(dim=-1)
    assert distance.min() > 6 and distance.max() < 10
    assert fitted.points.position.norm() < 0.3
    # Dataset coordinates do not change.
    for views in (fitted, loose):
        origins = views.cameras.pose[:, :, 3].double() @ views.to_dataset[:3, :3].T + views.to_dataset[:3, 3]
        expected = 2 * (4 * spiral(N_SHOTS, 0) + torch.tensor(center))
        torch.testing.assert_close(origins.float(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(fitted.cameras.pose[:, :, :3], loose.cameras.pose[:, :, :3])


def test_without_masks_there_is_nothing_to_fit(tmp_path: Path):
    views = capture(tmp_path, fits_masks=True).views("train")
    torch.testing.assert_close(views.to_dataset, TO_DATASET)


def test_the_scene_is_the_same_whatever_split_is_read_first(tmp_path: Path):
    first, again = (capture(tmp_path, 4, fits_masks=True, eval_every=4) for _ in range(2))
    test = first.views("test")
    again.views("train")
    torch.testing.assert_close(again.views("test").cameras.pose, test.cameras.pose, rtol=0, atol=0)


def test_sizes_that_contradict_are_refused():
    with pytest.raises(ValueError, match="img_wh and img_downscale both set the image size"):
        CaptureConfig(root_dir="nowhere", img_wh=[2, 2], img_downscale=2)


def test_lists_in_the_files_name_the_photographs_of_each_split(tmp_path: Path):
    lists = {"train": [1, 2, 5], "val": [0], "test": []}
    listed = capture(tmp_path, lists=lists, val_split="val")
    assert listed.views("train").names == ["1", "2", "5"] and listed.views("val").names == ["0"]
    # Nothing to test on: the path takes its place.
    assert not listed.views("test").is_real and listed.path() is None
    swapped = capture(tmp_path, lists=lists, val_split="train", test_split="val")
    assert swapped.views("val") is swapped.views("train") and swapped.views("test").names == ["0"]


def test_lengths_follow_when_the_region_becomes_the_unit_ball(tmp_path: Path):
    bounds = torch.tensor([[3.0, 5.0]]).repeat(N_SHOTS, 1) + torch.arange(N_SHOTS)[:, None]
    loose, fitted = (
        capture(tmp_path, 4, bounds=bounds, fits_masks=fits, eval_every=4).views("val") for fits in (False, True)
    )
    torch.testing.assert_close(loose.bounds, bounds[[0, 4, 8]])
    scale = fitted.cameras.pose[:, :, 3].norm(dim=-1) / 4
    torch.testing.assert_close(fitted.bounds, scale.mean() * bounds[[0, 4, 8]], rtol=0.05, atol=0)
