from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.crop import Crop
from datasets.lenses import Lens
from datasets.photograph_config import PhotographConfig
from datasets.photographs import Shot, image_size, read_photographs
from datasets.views import Views
from utils.registry import ConfigError

WIDTH, HEIGHT = 12, 8
PHONE = torch.tensor([0.05, -0.08, -0.001, 0.0002, 0, 0, 0, 0])


def lens_of(width: int, height: int) -> Lens:
    return Lens(torch.tensor([20.0, 24.0]), torch.tensor([width / 2, height / 2]))


def picture(path: Path, n_channels: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> np.ndarray:
    """An image file of random pixels."""
    pixels = np.random.default_rng(seed).integers(256, size=(size[1], size[0], n_channels), dtype=np.uint8)
    Image.fromarray(pixels[:, :, 0] if n_channels == 1 else pixels).save(path)
    return pixels


def shot(path: Path, mask: Path | None = None, lens=lens_of) -> Shot:
    return Shot(f"cameras, {path.stem}", path, torch.eye(4)[:3], lens, mask)


def read(shots: list[Shot], **options) -> Views:
    return read_photographs(shots, PhotographConfig(**options), "Reading")


def error_of(shots: list[Shot], **options) -> str:
    with pytest.raises(ConfigError) as caught:
        read(shots, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_photographs_may_differ_in_size_and_lens(tmp_path: Path):
    first, second = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", size=(5, 6))
    wide = Lens(torch.tensor([3.0, 3.0]), torch.tensor([2.0, 3.0]), PHONE)
    views = read([shot(tmp_path / "a.png"), shot(tmp_path / "b.png", lens=lambda width, height: wide)])
    assert views.names == ["a", "b"] and views.alpha is None
    assert views.size(0) == (WIDTH, HEIGHT) and views.size(1) == (5, 6)
    np.testing.assert_array_equal(views.color.numpy(), np.concatenate((first.reshape(-1, 3), second.reshape(-1, 3))))
    torch.testing.assert_close(views.cameras.focal, torch.tensor([[20.0, 24.0], [3.0, 3.0]]))
    torch.testing.assert_close(views.cameras.distortion, torch.stack((torch.zeros(8), PHONE)))
    assert views.cameras.is_fisheye is None


def test_each_photograph_is_shrunk_by_the_divisor_and_its_lens_with_it(tmp_path: Path):
    picture(tmp_path / "a.png", size=(12, 8)), picture(tmp_path / "b.png", size=(7, 10))
    views = read([shot(tmp_path / "a.png"), shot(tmp_path / "b.png")], img_downscale=2)
    assert views.size(0) == (6, 4) and views.size(1) == (3, 5)
    # Of seven columns three remain, each as wide as 7/3 of them.
    torch.testing.assert_close(views.cameras.focal, torch.tensor([[10.0, 12.0], [20 * 3 / 7, 12.0]]))
    torch.testing.assert_close(views.cameras.center, torch.tensor([[3.0, 2.0], [1.5, 2.5]]))


def test_the_first_channel_of_a_mask_says_where_the_object_is(tmp_path: Path):
    picture(tmp_path / "a.png", n_channels=4)
    for n_channels in (1, 3, 4):
        mask = picture(tmp_path / "mask.png", n_channels, seed=n_channels)
        views = read([shot(tmp_path / "a.png", tmp_path / "mask.png")])
        np.testing.assert_array_equal(views.alpha.numpy(), mask[:, :, 0].reshape(-1))


def test_masks_that_are_applied_weigh_colours_when_shrinking_and_others_do_not(tmp_path: Path):
    Image.fromarray(np.array([[[0, 200, 0], [100, 0, 0]]], dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[255, 0]], dtype=np.uint8)).save(tmp_path / "mask.png")
    shots = [shot(tmp_path / "a.png", tmp_path / "mask.png", lambda w, h: Lens(torch.ones(2), torch.ones(2)))]
    applied, kept = (read(shots, img_wh=[1, 1], apply_mask=apply_mask) for apply_mask in (True, False))
    assert applied.color.tolist() == [[0, 200, 0]] and kept.color.tolist() == [[50, 100, 0]]
    assert applied.alpha.item() in (127, 128) and kept.alpha.item() == applied.alpha.item()
    assert applied.apply_mask and not kept.apply_mask


def test_shrinking_without_masks_is_the_same_whether_they_would_be_applied_or_not(tmp_path: Path):
    picture(tmp_path / "a.png")
    one, other = (read([shot(tmp_path / "a.png")], img_downscale=2, apply_mask=value) for value in (True, False))
    assert torch.equal(one.color, other.color) and other.alpha is None


def test_the_store_stays_in_host_memory_on_request(tmp_path: Path):
    picture(tmp_path / "a.png")
    assert read([shot(tmp_path / "a.png")], load_data_on_gpu=False).is_store_fixed
    assert not read([shot(tmp_path / "a.png")]).is_store_fixed


def test_a_missing_mask_is_named(tmp_path: Path):
    picture(tmp_path / "a.png")
    expected = f"{tmp_path}/mask.png does not exist; it is the mask of {tmp_path}/a.png"
    assert error_of([shot(tmp_path / "a.png", tmp_path / "mask.png")]) == expected


def test_a_mask_of_another_size_is_named(tmp_path: Path):
    picture(tmp_path / "a.png"), picture(tmp_path / "mask.png", size=(6, 4))
    assert error_of([shot(tmp_path / "a.png", tmp_path / "mask.png")]) == (
        f"mask {tmp_path}/mask.png is 6x4, but {tmp_path}/a.png is 12x8; resize the mask"
    )


def test_half_a_set_of_masks_is_an_error(tmp_path: Path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    shots = [shot(tmp_path / "a.png", tmp_path / "a.png"), shot(tmp_path / "b.png")]
    assert error_of(shots) == (
        f"{tmp_path}/b.png has no mask, but {tmp_path}/a.png has one; give all images a mask or none"
    )


@pytest.mark.parametrize("focal", [0.5, 601.0, float("nan"), -20.0])
def test_focal_lengths_that_no_lens_has_are_refused(tmp_path: Path, focal: float):
    picture(tmp_path / "a.png")
    lens = Lens(torch.tensor([20.0, focal]), torch.ones(2))
    message = error_of([shot(tmp_path / "a.png", lens=lambda width, height: lens)])
    assert message.startswith(f"cameras, a: focal lengths 20, {focal:g} px in an image 12 px wide; expected 0.6 to 600")


def test_a_lens_that_is_not_finite_is_refused(tmp_path: Path):
    picture(tmp_path / "a.png")
    lens = Lens(torch.tensor([20.0, 20.0]), torch.tensor([float("nan"), 1.0]))
    message = error_of([shot(tmp_path / "a.png", lens=lambda width, height: lens)])
    assert message == "cameras, a: the lens holds NaN or infinity; estimate the camera again"


def upright_only(width: int, height: int) -> Lens:
    if (width, height) != (HEIGHT, WIDTH):
        raise ConfigError(f"the image is {width}x{height}, but its camera is {HEIGHT}x{WIDTH}; resize it")
    return lens_of(width, height)


@pytest.mark.parametrize("orientation, is_told", [(1, False), (3, False), (6, True), (8, True)])
def test_an_image_that_viewers_turn_is_named_as_such(tmp_path: Path, orientation: int, is_told: bool):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    message = error_of([shot(tmp_path / "a.jpg", lens=upright_only)])
    hint = f"; its EXIF orientation {orientation} turns it for viewers, so save it turned and without that tag"
    assert message == "the image is 12x8, but its camera is 8x12; resize it" + (hint if is_told else "")


def test_the_orientation_does_not_matter_where_the_camera_fits_the_stored_pixels(tmp_path: Path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "a.jpg", exif=exif)
    assert read([shot(tmp_path / "a.jpg", lens=upright_only)]).size(0) == (HEIGHT, WIDTH)


def test_a_lens_model_that_ends_within_the_image_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    # x (1 - x^2 / 2) is at most 0.54, and the image reaches to 1.
    folded = Lens(torch.tensor([6.0, 6.0]), torch.tensor([6.0, 4.0]), torch.tensor([-0.5, *[0.0] * 7]))
    read([shot(tmp_path / "a.png"), shot(tmp_path / "b.png", lens=lambda width, height: folded)])
    assert caplog.text.count("cameras, b: the lens model does not reach") == 1 and "(1 such images)" in caplog.text
    caplog.clear()
    read([shot(tmp_path / "a.png", lens=lambda w, h: Lens(torch.full((2,), 20.0), torch.tensor([6.0, 4.0]), PHONE))])
    assert not caplog.text


def test_sizes_are_known_before_decoding(tmp_path: Path):
    picture(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == (WIDTH, HEIGHT)
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"b\.png is not an image that can be read; expected PNG or JPEG"):
        image_size(tmp_path / "b.png")


def test_an_empty_crop_is_an_error(tmp_path: Path):
    picture(tmp_path / "a.png")
    thin = replace(shot(tmp_path / "a.png"), crop=Crop(0.0, (3, 2, 0.4, 5)))
    assert error_of([thin]).startswith(f"cameras, a: the box around the object leaves 0x5 px of {tmp_path}/a.png")


def test_depths_follow_crops_and_sizes(tmp_path: Path):
    picture(tmp_path / "a.png", size=(12, 8))
    # At half the size of the photograph: columns 0 and 1, 2 and 3, ... have depth 1, 2, ...
    depth = np.arange(1, 7, dtype=np.float32).repeat(4).reshape(6, 4).T.copy()
    taken = replace(shot(tmp_path / "a.png"), crop=Crop(0.0, (4, 0, 8, 8)), depth=lambda: depth)
    for side, expected in ((8, [3, 3, 4, 4, 5, 5, 6, 6]), (4, [3, 4, 5, 6])):
        views = read([taken], img_max_side=side)
        rays = views.image(0, torch.zeros(3)).rays
        along_axis = -(views.depth[:, None] * rays.directions)[:, 2]
        torch.testing.assert_close(along_axis.view(side, side), torch.tensor(expected).float().expand(side, side))


def test_the_longest_side_is_a_limit(tmp_path: Path):
    for name, size in (("a", (12, 8)), ("b", (5, 9)), ("c", (3, 2))):
        picture(tmp_path / f"{name}.png", size=size)
    views = read([shot(tmp_path / f"{name}.png") for name in "abc"], img_max_side=6)
    assert [views.size(view) for view in range(3)] == [(6, 4), (3, 6), (3, 2)]
    # Five columns became three.
    torch.testing.assert_close(views.cameras.focal[1], torch.tensor([20 * 3 / 5, 24 * 6 / 9]))


def test_scenes_and_times_are_known_of_all_or_of_none(tmp_path: Path):
    picture(tmp_path / "a.png")
    one = replace(shot(tmp_path / "a.png"), scene=3, time=0.5, name="first")
    views = read([one, one])
    assert views.scene.tolist() == [3, 3] and views.time.tolist() == [0.5, 0.5] and views.names == ["first"] * 2
    views = read([one, shot(tmp_path / "a.png")])
    assert views.scene is None and views.time is None and views.names == ["first", "a"]
