import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from datasets.cameras import Cameras
from datasets.points import SparsePoints
from datasets.region import ball_around, common_direction, lookat_point, region_in_sight, region_of_interest
from datasets.views import Views, pixel_offsets

TARGET = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)


def looking_at(target: Tensor, origins: Tensor) -> Tensor:
    """Upright poses from these places."""
    back = torch.nn.functional.normalize(origins - target, dim=1)
    right = torch.linalg.cross(torch.tensor([[0.0, 0, 1]]).to(back), back)
    right = torch.nn.functional.normalize(right, dim=1)
    return torch.stack((right, torch.linalg.cross(back, right), back, origins), dim=2)


def ring(n: int, radius: float = 3.0, height: float = 1.0, sweep: float = 2 * math.pi) -> Tensor:
    """Places on a level circle around the target."""
    angle = torch.arange(n, dtype=torch.float64) * sweep / n
    circle = torch.stack((radius * angle.cos(), radius * angle.sin(), torch.full_like(angle, height)), dim=1)
    return TARGET + circle


def sphere(n: int, radius: float) -> Tensor:
    """Random places on a sphere around the target."""
    return TARGET + radius * torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64), dim=1)


def similarity(seed: int) -> tuple[float, Tensor, Tensor]:
    """A random scale, rotation and translation."""
    torch.manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    return 7.5, rotation * torch.det(rotation), 20 * torch.randn(3, dtype=torch.float64)


def views_with_masks(poses: Tensor, radius: float, size: int = 48) -> Views:
    """Views whose masks show a ball around the target, by the angle between a ray and the ball's middle."""
    n = len(poses)
    sizes = torch.full((n, 2), size)
    cameras = Cameras(poses.float(), torch.full((n, 2), 1.2 * size), sizes / 2, sizes)
    offsets = pixel_offsets(sizes)
    views = Views(cameras, ["view"] * n, offsets, torch.zeros(int(offsets[-1]), 3, dtype=torch.uint8))
    alpha = []
    for view in range(n):
        rays = views.image(view, torch.zeros(3)).rays
        along = ((TARGET.float() - rays.origins) * rays.directions).sum(1)
        beside = (TARGET.float() - rays.origins - along[:, None] * rays.directions).norm(dim=1)
        alpha.append(255 * (beside < radius).byte())
    return replace(views, alpha=torch.cat(alpha))


def test_the_point_looked_at_is_where_optical_axes_meet():
    torch.testing.assert_close(lookat_point(looking_at(TARGET, ring(12))), TARGET, atol=1e-5, rtol=0)


def test_nearly_equal_neighbours_do_not_move_the_point_looked_at():
    origins = ring(12)
    poses = looking_at(TARGET, origins)
    # Two centimetres beside the first camera, its axis turned by 1e-4: the two axes meet far away.
    twin = poses[:1].clone()
    twin[:, :, 3] += 0.02 * twin[:, :, 0]
    twin[:, :, 2] += 1e-4 * twin[:, :, 0]
    point = lookat_point(torch.cat((twin, poses)))
    assert (point - TARGET).norm() < 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_of_the_cameras_may_look_elsewhere(seed):
    torch.manual_seed(seed)
    poses = looking_at(TARGET, ring(40))
    poses[::5] = looking_at(TARGET + torch.tensor([9.0, 4.0, -1.0]), ring(40)[::5] + torch.rand(8, 3))
    assert (lookat_point(poses) - TARGET).norm() < 1e-4


def test_parallel_axes_meet_in_front_of_the_cameras():
    poses = looking_at(TARGET, TARGET + torch.tensor([[4.0, 0, 0]]).double()).repeat(3, 1, 1)
    poses[:, 1, 3] += torch.tensor([-1.0, 0, 1])
    point = lookat_point(poses)
    assert point.isfinite().all() and point[0] < poses[0, 0, 3]


def scenery(seed: int) -> Tensor:
    """Sparse points: an object of radius 0.8, and a few far walls around everything."""
    torch.manual_seed(seed)
    walls = sphere(300, 12.0)
    return torch.cat((sphere(700, 0.8), walls))


def test_sparse_points_that_most_cameras_see_make_a_tight_region():
    center, radius = region_in_sight(looking_at(TARGET, ring(20)), scenery(0))
    assert (center - TARGET).norm() < 0.1
    assert 0.8 <= radius < 1.0


def test_the_region_comes_to_the_points_when_cameras_aim_behind_them():
    # Cameras on one side aim one unit behind the middle of the object.
    aim = TARGET - torch.tensor([0.8, 0.6, 0]).double()
    poses = looking_at(aim, ring(20, sweep=1.3, radius=4.0, height=0.5))
    center, radius = region_in_sight(poses, scenery(0))
    away = (scenery(0)[:700] - center).norm(dim=1)
    assert (away <= radius).double().mean() > 0.97
    assert (center - TARGET).norm() < 0.2 and radius < 1.1


def test_without_points_the_region_is_what_most_cameras_look_at():
    center, radius = region_in_sight(looking_at(TARGET, ring(20)), None, torch.full((20, 2), 0.3))
    # The cone of the lens is 3.16 sin(atan 0.3) = 0.91 wide at the target; the object may be larger.
    assert (center - TARGET).norm() < 1e-4
    assert radius == pytest.approx(2 * math.sqrt(10) * math.sin(math.atan(0.3)), rel=1e-3)


def test_the_view_of_a_lens_is_that_of_its_outermost_pixels():
    poses = looking_at(TARGET, ring(20))
    views = replace(views_with_masks(poses, 0.4, size=48), alpha=None)
    _, radius = region_of_interest(views)
    _, expected = region_in_sight(poses, None, torch.full((20, 2), 23.5 / (1.2 * 48)))
    assert radius == pytest.approx(expected, rel=1e-3)
    # A barrel lens sees more with the same focal length.
    cameras = replace(views.cameras, distortion=torch.tensor([[-0.2] + [0.0] * 7]).repeat(20, 1))
    assert region_of_interest(replace(views, cameras=cameras))[1] > 1.01 * radius


def test_no_camera_stands_in_the_region_however_wide_its_view():
    _, radius = region_in_sight(looking_at(TARGET, ring(20)), None, torch.full((20, 2), 3.0))
    assert radius < math.sqrt(10)


def test_too_few_points_say_nothing():
    poses = looking_at(TARGET, ring(20))
    assert region_in_sight(poses, sphere(5, 0.1))[1] == region_in_sight(poses)[1]
    assert region_in_sight(poses, sphere(0, 0.1))[1] == region_in_sight(poses)[1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_points", [True, False])
def test_the_region_moves_turns_and_grows_with_the_capture(seed, with_points):
    poses, points = looking_at(TARGET, ring(17, sweep=4.0)), scenery(seed)
    scale, rotation, shift = similarity(seed)
    moved = rotation @ poses
    moved[:, :, 3] = scale * moved[:, :, 3] + shift
    center, radius = region_in_sight(poses, points if with_points else None)
    again = region_in_sight(moved, scale * points @ rotation.T + shift if with_points else None)
    torch.testing.assert_close(again[0], scale * rotation @ center + shift, atol=1e-6, rtol=1e-6)
    assert again[1] == pytest.approx(scale * radius, rel=1e-6)


def test_masks_give_the_ball_around_the_object():
    poses = looking_at(TARGET, torch.cat((ring(16), ring(8, height=-1.5))))
    views = views_with_masks(poses, 0.4)
    center, radius = region_of_interest(views)
    assert (center - TARGET).norm() < 0.03
    assert 0.4 <= radius < 0.5


def test_masks_win_over_points_and_points_over_frusta():
    views = views_with_masks(looking_at(TARGET, torch.cat((ring(16), ring(8, height=-1.5)))), 0.4)
    torch.manual_seed(0)
    views = replace(views, points=SparsePoints.unobserved(sphere(500, 0.7).float()))
    without_masks = replace(views, alpha=None)
    without_points = replace(without_masks, points=None)
    by_masks, by_points, by_frusta = (region_of_interest(v)[1] for v in (views, without_masks, without_points))
    assert 0.4 <= by_masks < 0.5 and 0.7 <= by_points < 0.85 and by_frusta > 1


def test_a_spoilt_mask_changes_little():
    views = views_with_masks(looking_at(TARGET, torch.cat((ring(16), ring(8, height=-1.5)))), 0.4)
    right = region_of_interest(views)
    views.alpha[views.offsets[3] : views.offsets[4]] = 0
    center, radius = region_of_interest(views)
    assert (center - right[0]).norm() < 0.03 and radius == pytest.approx(right[1], rel=0.1)


def test_masks_that_agree_on_nothing_are_told_and_left_aside(caplog):
    views = views_with_masks(looking_at(TARGET, ring(8)), 0.4)
    views.alpha.zero_()
    assert region_of_interest(views)[1] == region_of_interest(replace(views, alpha=None))[1]
    assert "masks" in caplog.text


def test_an_object_larger_than_expected_is_found_whole():
    poses = looking_at(TARGET, torch.cat((ring(16, radius=8.0), ring(8, radius=8.0, height=-5.0))))
    views = views_with_masks(poses, 2.6)
    center, radius = region_of_interest(views)
    assert (center - TARGET).norm() < 0.15 and 2.5 < radius < 3.2


def test_the_same_photographs_give_the_same_numbers():
    views = views_with_masks(looking_at(TARGET, ring(16)), 0.4)
    first, second = region_of_interest(views), region_of_interest(views)
    assert torch.equal(first[0], second[0]) and first[1] == second[1]


def facing_one_way(n: int = 9) -> Tensor:
    """Poses side by side, three before the target, that look along the same axis."""
    poses = looking_at(TARGET, TARGET + torch.tensor([[3.0, 0, 0]]).double()).repeat(n, 1, 1)
    poses[:, 1, 3] += torch.linspace(-1, 1, n, dtype=torch.float64)
    return poses


def test_known_depths_tell_where_a_region_ahead_begins_and_ends():
    bounds = torch.tensor([[2.0, 5.0]]).repeat(9, 1)
    center, radius = region_in_sight(facing_one_way(), None, torch.full((9, 2), 0.5), bounds)
    torch.testing.assert_close(center, TARGET + torch.tensor([3 - 3.5, 0, 0]).double())
    assert radius == pytest.approx(1.5)


def test_a_deep_region_ahead_is_no_larger_than_cameras_see_it():
    bounds = torch.tensor([[2.0, 500.0]]).repeat(9, 1)
    for tangent in (0.2, 0.4, 3.0):
        center, radius = region_in_sight(facing_one_way(), None, torch.full((9, 2), tangent), bounds)
        distance = float((TARGET[0] + 3) - center[0])
        assert distance - radius == pytest.approx(2)
        assert radius <= min(2 * math.sin(math.atan(tangent)), 0.8) * distance + 1e-6


def test_known_depths_say_nothing_where_cameras_stand_around():
    poses = looking_at(TARGET, ring(20))
    assert common_direction(poses) is None
    bounds = torch.tensor([[1.0, 50.0]]).repeat(20, 1)
    assert region_in_sight(poses, None, None, bounds)[1] == region_in_sight(poses)[1]


def test_the_region_of_several_scenes_holds_that_of_each():
    one, other = looking_at(TARGET, ring(12)), looking_at(TARGET, ring(12))
    other[:, 0, 3] += 2
    views = views_with_masks(torch.cat((one, other)), 0.4)
    views = replace(views, scene=torch.tensor([0] * 12 + [1] * 12))
    center, radius = region_of_interest(views)
    torch.testing.assert_close(center, TARGET + torch.tensor([1, 0, 0]), atol=1e-4, rtol=0)
    alone = region_of_interest(replace(views_with_masks(one, 0.4), alpha=None))
    assert radius == pytest.approx(1 + alone[1], rel=1e-4)


def test_a_ball_around_balls_touches_the_outermost():
    center, radius = ball_around([(TARGET, 0.5), (TARGET + 2, 0.1)])
    torch.testing.assert_close(center, TARGET + 1)
    assert radius == pytest.approx(math.sqrt(3) + 0.5)
