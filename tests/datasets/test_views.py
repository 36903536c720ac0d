import pytest
import torch

from datasets.cameras import Cameras
from datasets.pixels import draw_pixels
from datasets.points import SparsePoints
from datasets.views import Views, pixel_offsets
from utils.registry import ConfigError

BLUE = torch.tensor([0.0, 0.0, 1.0])


def views_of_sizes(*sizes: tuple[int, int], with_mask: bool = True, **options) -> Views:
    """Views with random pixels."""
    torch.manual_seed(0)
    size = torch.tensor(sizes)
    offsets = pixel_offsets(size)
    n_pixels = int(offsets[-1])
    cameras = Cameras(torch.eye(4)[:3].repeat(len(sizes), 1, 1), size.float(), size / 2, size)
    color = torch.randint(256, (n_pixels, 3), dtype=torch.uint8)
    alpha = torch.randint(256, (n_pixels,), dtype=torch.uint8) if with_mask else None
    return Views(cameras, [f"image {i}" for i in range(len(sizes))], offsets, color, alpha, **options)


def test_images_of_different_sizes_share_one_store():
    views = views_of_sizes((4, 3), (5, 7), with_mask=False)
    batch = views.draw(torch.tensor([1]), torch.tensor([[2, 6]]), BLUE[None])
    # 12 pixels of the first image, six rows of five, then two more.
    torch.testing.assert_close(batch.target.color[0], views.color[12 + 30 + 2] / 255)
    assert views.size(1) == (5, 7) and len(views) == 2


def test_an_image_is_its_pixels_row_by_row():
    views = views_of_sizes((4, 3), (5, 7))
    batch = views.image(1, BLUE)
    assert len(batch.rays) == 35
    assert batch.rays.pixel[:6].tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0], [0, 1]]
    single = views.draw(torch.tensor([1]), torch.tensor([[3, 4]]), BLUE[None])
    torch.testing.assert_close(batch.target.color[4 * 5 + 3], single.target.color[0])
    torch.testing.assert_close(batch.rays.directions[4 * 5 + 3], single.rays.directions[0])


def test_a_picture_is_a_part_of_the_store_in_the_shape_of_its_image():
    views = views_of_sizes((4, 3), (5, 7))
    color, alpha = (views.picture(part, 1) for part in (views.color, views.alpha))
    assert color.shape == (7, 5, 3) and alpha.shape == (7, 5, 1)
    assert torch.equal(color[6, 2], views.color[12 + 30 + 2]) and alpha[6, 2] == views.alpha[12 + 30 + 2]


def test_targets_stand_on_the_backdrop_of_their_ray():
    views = views_of_sizes((8, 8))
    batch = views.image(0, BLUE)
    mask = views.alpha[:, None] / 255
    torch.testing.assert_close(batch.target.color, views.color / 255 * mask + BLUE * (1 - mask))
    torch.testing.assert_close(batch.target.mask, mask[:, 0])


def test_masks_that_are_not_applied_leave_the_colour_alone():
    views = views_of_sizes((8, 8), apply_mask=False)
    torch.testing.assert_close(views.image(0, BLUE).target.color, views.color / 255)
    assert views.has_mask


def test_without_masks_the_backdrop_is_never_seen():
    views = views_of_sizes((8, 8), with_mask=False)
    batch = views.image(0, BLUE)
    torch.testing.assert_close(batch.target.color, views.color / 255)
    assert batch.target.mask is None and not views.has_mask


def test_a_camera_path_has_placeholders_that_are_not_real():
    views = views_of_sizes((4, 4), with_mask=False)
    views.color = None
    target = views.image(0, BLUE).target
    assert not target.is_real and target.color.shape == (16, 3)


def test_depth_and_normal_follow_their_pixel():
    views = views_of_sizes((4, 4))
    views.depth, views.normal = torch.arange(16.0), torch.arange(48.0).view(16, 3)
    target = views.draw(torch.tensor([0]), torch.tensor([[1, 2]]), BLUE[None]).target
    assert target.depth.tolist() == [9.0] and target.normal.tolist() == [[27.0, 28.0, 29.0]]


def test_pixels_are_drawn_evenly_over_images_and_over_each_image():
    views = views_of_sizes((3, 5), (7, 2))
    torch.manual_seed(0)
    view, pixel = draw_pixels(views, 60_000, one_image=False)
    row = views.offsets[view] + pixel[:, 1] * views.cameras.size[view, 0] + pixel[:, 0]
    share = torch.bincount(row, minlength=29) / 60_000
    expected = torch.cat((torch.full((15,), 0.5 / 15), torch.full((14,), 0.5 / 14)))
    # Five standard deviations of a share of 1/30 among 60,000.
    assert (share - expected).abs().max() < 5 * (1 / 30 / 60_000) ** 0.5


def test_one_image_a_step_means_one_image():
    views = views_of_sizes((3, 5), (7, 2), (4, 4))
    torch.manual_seed(0)
    drawn = [draw_pixels(views, 50, one_image=True)[0].unique().tolist() for _ in range(20)]
    assert all(len(view) == 1 for view in drawn)
    assert {view[0] for view in drawn} == {0, 1, 2}


def test_the_default_generator_decides_what_is_drawn():
    views = views_of_sizes((30, 50))
    torch.manual_seed(3)
    first = draw_pixels(views, 100, one_image=False)
    torch.manual_seed(3)
    again = draw_pixels(views, 100, one_image=False)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_fixed_store_stays_when_the_cameras_move():
    views = views_of_sizes((4, 4))
    views.points, views.is_store_fixed = SparsePoints.unobserved(torch.zeros(5, 3)), True
    moved = views.to("meta")
    assert moved.color is views.color and moved.alpha is views.alpha
    assert all(part.is_meta for part in (moved.cameras.pose, moved.offsets, moved.points.position))
    assert moved.is_store_fixed and not views.offsets.is_meta
    views.is_store_fixed = False
    assert views.to("meta").color.is_meta


def test_the_store_weighs_a_byte_per_value():
    # 12 and 35 pixels, red, green, blue and mask.
    assert views_of_sizes((4, 3), (5, 7)).n_bytes == (12 + 35) * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device to gather for")
@pytest.mark.parametrize("is_store_fixed", [False, True])
def test_batches_are_the_same_wherever_the_store_is(is_store_fixed: bool):
    views = views_of_sizes((4, 3), (5, 7), is_store_fixed=is_store_fixed)
    here, there = views.image(1, BLUE), views.to("cuda").image(1, BLUE.cuda())
    assert there.target.color.is_cuda and there.target.mask.is_cuda
    torch.testing.assert_close(there.target.color.cpu(), here.target.color)
    torch.testing.assert_close(there.rays.directions.cpu(), here.rays.directions)


def test_pixels_of_the_object_are_drawn_with_equal_chances():
    torch.manual_seed(0)
    views = views_of_sizes((4, 3), (5, 2), (2, 2))
    views.alpha = torch.zeros_like(views.alpha)
    places = [(0, 3, 2), (1, 4, 0), (1, 0, 1)]
    for view, column, row in places:
        views.alpha[views.offsets[view] + row * views.size(view)[0] + column] = 128
    view, pixel = draw_pixels(views, 30_000, False, "mask")
    drawn = torch.cat([view[:, None], pixel], dim=1)
    found, count = drawn.unique(dim=0, return_counts=True)
    assert {tuple(place) for place in found.tolist()} == set(places)
    assert (count / 30_000 - 1 / 3).abs().max() < 0.01
    # Images without the object are never the one image.
    images = {tuple(draw_pixels(views, 20, True, "mask")[0].unique().tolist()) for _ in range(30)}
    assert images == {(0,), (1,)}


def test_a_full_grid_is_one_image_row_by_row():
    torch.manual_seed(0)
    views = views_of_sizes((4, 3), (5, 2))
    seen = set()
    for _ in range(20):
        view, pixel = draw_pixels(views, 7, True, "full-grid")
        rays = views.image(int(view[0]), BLUE).rays
        assert torch.equal(pixel, rays.pixel) and torch.equal(view, rays.view)
        seen.add(int(view[0]))
    assert seen == {0, 1}


@pytest.mark.parametrize(("with_mask", "message"), [(False, "no masks"), (True, "cover nothing")])
def test_pixels_of_no_object_are_refused(with_mask, message):
    views = views_of_sizes((4, 3), with_mask=with_mask)
    if with_mask:
        views.alpha.zero_()
    with pytest.raises(ConfigError, match=message):
        draw_pixels(views, 7, False, "mask")


def test_rays_carry_what_is_known_of_their_view():
    views = views_of_sizes((4, 3), (5, 2), scene=torch.tensor([3, 1]), time=torch.tensor([0.5, 2.0]))
    rays = views.draw(torch.tensor([1, 0]), torch.zeros(2, 2, dtype=torch.int64), BLUE.expand(2, 3)).rays
    assert rays.scene.tolist() == [1, 3] and rays.time.tolist() == [2.0, 0.5]
    torch.testing.assert_close(rays.mask, views.alpha[views.offsets[[1, 0]]] / 255)
    # Sides of a pixel at distance 1 are 1 / f, with f the width and the height of the image.
    torch.testing.assert_close(rays.radius, torch.tensor([1 / 5 + 1 / 2, 1 / 4 + 1 / 3]) / 12**0.5)
    assert views_of_sizes((4, 3)).image(0, BLUE).rays.scene is None
