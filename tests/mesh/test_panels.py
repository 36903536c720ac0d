"""Laws of the pictures that a person looks at."""

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from systems.panels import (
    color_picture,
    depth_picture,
    normal_picture,
    opacity_picture,
    panel,
    save_image,
    view_panel,
    write_video,
)
from utils.types import Rendered, Target

WHITE = [255, 255, 255]


def test_colours_are_rounded_and_clipped():
    color = torch.tensor([[[0.0, 0.5, 1.0], [-1.0, 2.0, float("nan")]]])
    assert color_picture(color).tolist() == [[[0, 128, 255], [0, 255, 0]]]


def test_near_is_blue_far_is_red_and_nothing_is_white():
    depth, is_hit = torch.tensor([[2.0, 3.0, 900.0]]), torch.tensor([[True, True, False]])
    near, far, nothing = depth_picture(depth, is_hit)[0].tolist()
    assert near[2] > 100 > near[0] and far[0] > 100 > far[2]
    assert nothing == WHITE


@pytest.mark.parametrize("is_hit", [True, False])
def test_a_constant_depth_is_one_colour(is_hit):
    picture = depth_picture(torch.full((3, 4), 2.5), torch.full((3, 4), is_hit))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1
    assert (picture == 255).all() != is_hit


def test_a_depth_that_is_not_a_number_is_no_hit():
    depth = torch.tensor([[1.0, 2.0, float("nan"), float("inf")]])
    assert depth_picture(depth, torch.ones(1, 4, dtype=torch.bool))[0, 2:].tolist() == [WHITE, WHITE]


def test_normals_map_their_axes_to_colours_on_white():
    normal = torch.tensor([[[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    picture = normal_picture(normal, torch.tensor([[1.0, 0.5, 1.0]]))
    assert picture[0, 0].tolist() == [128, 128, 255]
    assert picture[0, 1].tolist() == [128, 191, 191]  # half of (0, 128, 128), half white
    assert picture[0, 2].tolist() == WHITE


def test_opacity_is_grey():
    assert opacity_picture(torch.tensor([[0.0, 1.0]])).tolist() == [[[0, 0, 0], WHITE]]


def rendered(height: int, width: int, **more) -> Rendered:
    n = height * width
    return Rendered(torch.rand(n, 3), torch.ones(n), torch.linspace(1, 2, n), **more)


def test_a_panel_shows_photograph_render_depth_and_opacity():
    torch.manual_seed(0)
    image, target = rendered(4, 6), Target(torch.rand(24, 3))
    picture = view_panel(image, target, 6, 4)
    assert picture.shape == (4, 4 * 6, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, :6], color_picture(target.color.view(4, 6, 3)))
    np.testing.assert_array_equal(picture[:, 6:12], color_picture(image.color.view(4, 6, 3)))


def test_a_placeholder_is_not_shown_as_a_photograph():
    assert view_panel(rendered(4, 6), Target(torch.rand(24, 3), is_real=False), 6, 4).shape == (4, 3 * 6, 3)


def test_a_learnt_background_is_shown_by_itself_and_taken_off_the_foreground():
    torch.manual_seed(1)
    behind, foreground, opacity = torch.rand(24, 3), 0.3 * torch.rand(24, 3), 0.3 * torch.ones(24)
    image = Rendered(
        foreground + (1 - opacity)[:, None] * behind,
        opacity,
        torch.ones(24),
        normal=torch.zeros(24, 3),
        background=Rendered(behind, torch.ones(24), torch.ones(24)),
    )
    picture = view_panel(image, Target(torch.rand(24, 3)), 6, 4)
    assert picture.shape == (4, 6 * 6, 3)
    np.testing.assert_array_equal(picture[:, 12:18], color_picture(behind.view(4, 6, 3)))
    difference = picture[:, 18:24].astype(int) - color_picture(foreground.view(4, 6, 3))
    assert np.abs(difference).max() <= 1


def test_images_come_back_as_they_were_saved(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_image(tmp_path / "new" / "it1-0.png", panel([picture, picture]))
    np.testing.assert_array_equal(imageio.imread(tmp_path / "new" / "it1-0.png"), np.hstack([picture, picture]))


def test_a_video_keeps_every_frame_and_pixel_and_makes_sizes_even(tmp_path):
    paths = []
    for i, (height, width) in enumerate([(31, 45), (30, 45), (31, 40), (31, 45)]):
        paths.append(tmp_path / f"{i}.png")
        save_image(paths[-1], np.full((height, width, 3), 60 * i, dtype=np.uint8))
    video = imageio.imread(write_video(paths, tmp_path / "it1-test.mp4"))

    assert video.shape == (4, 32, 46, 3)
    for i, frame in enumerate(video):
        assert abs(int(frame[10, 20].mean()) - 60 * i) < 8
    assert video[2, 10, 44].min() > 230  # the border of a smaller frame is white


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video([], tmp_path / "it1-test.mp4")
