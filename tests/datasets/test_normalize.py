import math

import pytest
import torch
from torch import Tensor

from datasets.normalize import NormalizeConfig, ball, normalize, points_to_scene, to_scene, upright
from datasets.region import region_in_sight
from utils.registry import ConfigError

CENTERS = ["region", "lookat", "camera", "point", "none"]


def capture(seed: int, n: int = 24) -> tuple[Tensor, Tensor]:
    """Cameras around an object on the ground (z = 0), slightly rolled, and its sparse points, two fifths elsewhere."""
    torch.manual_seed(seed)
    angle = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    place = torch.stack((3 * angle.cos(), 3 * angle.sin(), 1.5 + 0.3 * torch.rand(n, dtype=torch.float64)), dim=1)
    target = torch.tensor([0, 0, 0.5], dtype=torch.float64) + 0.05 * torch.randn(n, 3, dtype=torch.float64)
    back = torch.nn.functional.normalize(place - target, dim=1)
    up = torch.tensor([[0, 0, 1]]) + 0.03 * torch.randn(n, 3, dtype=torch.float64)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, back), dim=1)
    poses = torch.stack((right, torch.linalg.cross(back, right), back, place), dim=2)

    ground = torch.rand(600, 3, dtype=torch.float64) * torch.tensor([4, 4, 0.01]) - torch.tensor([2, 2, 0.005])
    thing = torch.rand(400, 3, dtype=torch.float64) - torch.tensor([0.5, 0.5, 0])
    return poses, torch.cat((ground, thing))


def moved(poses: Tensor, points: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The same capture in other coordinates: turned, scaled, shifted."""
    torch.manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    rotation = rotation * torch.det(rotation)
    scale, shift = 0.2, 50 * torch.randn(3, dtype=torch.float64)
    poses = rotation @ poses
    poses[:, :, 3] = scale * poses[:, :, 3] + shift
    return poses, scale * points @ rotation.T + shift


def facing_first(poses: Tensor) -> Tensor:
    """Poses turned about z so that the first camera stands over the x axis."""
    angle = -torch.atan2(poses[0, 1, 3], poses[0, 0, 3])
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos())).view(2, 2)
    return torch.cat((turn @ poses[:, :2], poses[:, 2:]), dim=1)


def up_of(to_dataset: Tensor) -> Tensor:
    """The scene's z in dataset coordinates."""
    return torch.nn.functional.normalize(to_dataset[:3, 2], dim=0)


@pytest.mark.parametrize("up", ["ground", "camera"])
@pytest.mark.parametrize("center", ["region", "lookat", "camera", "point"])
def test_normalised_cameras_do_not_depend_on_where_a_capture_lies(up, center):
    poses, points = capture(0)
    config = NormalizeConfig(up, center)
    expected = facing_first(to_scene(poses, normalize(poses, points, config)))
    elsewhere, points = moved(poses, points, 1)
    found = facing_first(to_scene(elsewhere, normalize(elsewhere, points, config)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("center", CENTERS)
def test_scene_poses_are_rigid_and_lead_back_to_the_dataset(center):
    poses, points = moved(*capture(0), 2)
    to_dataset = normalize(poses, points, NormalizeConfig("camera", center))
    scene = to_scene(poses, to_dataset)
    assert scene.dtype == torch.float32
    rotation = scene[:, :, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(24, 3, 3), atol=1e-6, rtol=0)
    # Two units ahead of every camera, in both coordinates.
    ahead = scene[:, :, 3] - 2 * scene[:, :, 2]
    scale = torch.linalg.det(to_dataset[:3, :3]) ** (1 / 3)
    expected = poses[:, :, 3] - 2 * scale * poses[:, :, 2]
    torch.testing.assert_close(ahead.double() @ to_dataset[:3, :3].T + to_dataset[:3, 3], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(points_to_scene(poses[:, :, 3], to_dataset), scene[:, :, 3])


def test_coordinates_in_the_millions_lose_nothing():
    poses, points = capture(0)
    far = torch.tensor([4e6, -2e6, 5e6], dtype=torch.float64)
    config = NormalizeConfig("camera", "lookat")
    expected = to_scene(poses, normalize(poses, points, config))
    poses[:, :, 3] += far
    torch.testing.assert_close(to_scene(poses, normalize(poses, points + far, config)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("center", ["lookat", "camera", "point"])
def test_the_nearest_camera_comes_to_distance_one(center):
    poses, points = capture(0)
    scene = to_scene(poses, normalize(poses, points, NormalizeConfig("ground", center)))
    assert scene[:, :, 3].norm(dim=1).min().item() == pytest.approx(1, abs=1e-5)


def test_the_region_of_interest_becomes_the_unit_ball():
    poses, points = moved(*capture(0), 3)
    center, radius = region_in_sight(poses, points)
    to_dataset = normalize(poses, points, NormalizeConfig(), (center, radius))
    torch.testing.assert_close(to_dataset[:3, 3], center)
    on_it = center + radius * torch.tensor([[0.6, 0.8, 0]], dtype=torch.float64)
    assert points_to_scene(on_it, to_dataset).norm().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(normalize(poses, points, NormalizeConfig()), to_dataset)


def test_nothing_changes_where_nothing_is_estimated():
    poses, points = capture(0)
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(normalize(poses, points, NormalizeConfig("none", "none")), identity)
    torch.testing.assert_close(ball(torch.zeros(3), 1.0), identity)


@pytest.mark.parametrize("seed", range(5))
def test_the_ground_is_found_among_two_fifths_of_other_points(seed):
    poses, points = capture(seed)
    up = up_of(normalize(poses, points, NormalizeConfig("ground", "lookat")))
    assert up[2] > math.cos(math.radians(0.5))


def test_a_wall_with_more_points_is_no_ground():
    poses, points = capture(0)
    torch.manual_seed(0)
    wall = torch.rand(1500, 3, dtype=torch.float64) * torch.tensor([0.01, 4, 3]) + torch.tensor([-3.5, -2, 0])
    up = up_of(normalize(poses, torch.cat((points, wall)), NormalizeConfig("ground", "lookat")))
    assert up[2] > math.cos(math.radians(1))


def test_a_camera_turned_on_its_side_still_stands_on_the_ground():
    poses, points = capture(0)
    poses = torch.stack((-poses[:, :, 1], poses[:, :, 0], poses[:, :, 2], poses[:, :, 3]), dim=2)
    assert up_of(normalize(poses, points, NormalizeConfig("ground", "lookat")))[2] > 0.999


@pytest.mark.parametrize("points", ["none", "cloud", "two"])
def test_without_a_ground_the_cameras_say_what_is_up_and_a_notice_says_so(points, caplog):
    poses, _ = capture(0)
    cloud = {"none": None, "cloud": torch.randn(800, 3).double(), "two": torch.zeros(2, 3).double()}[points]
    found = normalize(poses, cloud, NormalizeConfig("ground", "lookat"))
    torch.testing.assert_close(found, normalize(poses, cloud, NormalizeConfig("camera", "lookat")))
    assert "up_est_method = ground" in caplog.text


@pytest.mark.parametrize("center", ["lookat", "camera", "point"])
def test_up_of_the_cameras_is_the_mean_of_their_up_axes(center):
    poses, points = moved(*capture(0), 4)
    mean = torch.nn.functional.normalize(poses[:, :, 1].mean(0), dim=0)
    torch.testing.assert_close(up_of(normalize(poses, points, NormalizeConfig("camera", center))), mean)


def test_up_axes_that_cancel_out_are_an_error_with_a_remedy():
    poses, points = capture(0)
    poses[::2] = poses[::2] * torch.tensor([-1, -1, 1, 1])  # every other camera held upside down
    with pytest.raises(ConfigError, match="cancel out.*none"):
        normalize(poses, points, NormalizeConfig("camera", "lookat"))


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 0, -1), (1e-9, 0, -1), (0, 1, 0), (0.6, 0, 0.8)])
def test_any_direction_can_be_turned_upright(up):
    up = torch.nn.functional.normalize(torch.tensor(up, dtype=torch.float64), dim=0)
    rotation = upright(up)
    torch.testing.assert_close(rotation @ up, torch.tensor([0, 0, 1]).double(), atol=1e-8, rtol=0)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3).double())
    assert torch.det(rotation) > 0


def test_what_stands_upright_is_not_turned():
    z = torch.tensor([0, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(upright(z), torch.eye(3, dtype=torch.float64))
    # The smallest turn: about x, which stays.
    tilted = upright(torch.tensor([0, -0.6, 0.8], dtype=torch.float64))
    torch.testing.assert_close(tilted[:, 0], torch.tensor([1, 0, 0]).double())


def test_few_strays_do_not_move_the_centre_of_the_points():
    poses, points = capture(0)
    torch.manual_seed(0)
    strays = torch.rand(30, 3, dtype=torch.float64) + torch.tensor([0, 0, 40])
    config = NormalizeConfig("camera", "point")
    expected = normalize(poses, points, config)[:3, 3]
    found = normalize(poses, torch.cat((points, strays)), config)[:3, 3]
    assert (found - expected).norm() < 0.3 and (found - strays.mean(0)).norm() > 39


def test_points_are_needed_for_a_centre_of_points():
    poses, points = capture(0)
    with pytest.raises(ConfigError, match="center_est_method = point.*region"):
        normalize(poses, None, NormalizeConfig("camera", "point"))
    with pytest.raises(ConfigError, match="between the cameras"):
        normalize(poses, points + 100, NormalizeConfig("camera", "point"))


def test_a_centre_inside_a_camera_is_an_error():
    poses, _ = capture(0, n=1)
    with pytest.raises(ConfigError, match="into a camera"):
        normalize(poses, None, NormalizeConfig("camera", "camera"))


def test_the_same_input_gives_the_same_numbers():
    poses, points = moved(*capture(0), 5)
    for center in CENTERS:
        config = NormalizeConfig("ground", center)
        first = normalize(poses, points, config)
        torch.manual_seed(99)
        assert torch.equal(first, normalize(poses, points, config))
