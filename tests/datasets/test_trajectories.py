import math

import pytest
import torch

from datasets.cameras import Cameras
from datasets.trajectories import make_path, path_views
from utils.registry import ConfigError

Z = torch.tensor([0.0, 0.0, 1.0])


def looking_inward(azimuth: torch.Tensor, elevation: float = 0.5, distance: float = 3.0) -> torch.Tensor:
    """Upright poses at these angles (radians) that look at the origin."""
    back = torch.stack((math.cos(elevation) * azimuth.cos(), math.cos(elevation) * azimuth.sin()), dim=1)
    back = torch.cat((back, torch.full_like(back[:, :1], math.sin(elevation))), dim=1)
    right = torch.nn.functional.normalize(torch.cross(Z.expand_as(back), back, dim=1), dim=1)
    return torch.stack((right, torch.cross(back, right, dim=1), back, distance * back), dim=2)


RING = looking_inward(torch.arange(12) * 2 * math.pi / 12)
ARC = looking_inward(torch.linspace(-0.7, 1.1, 9))
TURN, _ = torch.linalg.qr(torch.tensor([[1.0, 2.0, 0.3], [-1.0, 0.5, 2.0], [0.2, 0.1, -1.0]]))
TURN = TURN * torch.det(TURN)


def azimuth(poses: torch.Tensor) -> torch.Tensor:
    return torch.atan2(poses[:, 1, 3], poses[:, 0, 3])


@pytest.mark.parametrize("kind", ["auto", "circle", "arc", "spiral"])
def test_every_frame_is_rigid_and_looks_at_the_origin(kind):
    for poses in (RING, ARC, TURN @ ARC):
        path = make_path(kind, poses, 7)
        rotation, place = path[:, :, :3], path[:, :, 3]
        torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(7, 3, 3), atol=1e-5, rtol=0)
        assert (torch.linalg.det(rotation) > 0).all()
        ahead = place - rotation[:, :, 2] * place.norm(dim=1, keepdim=True)
        torch.testing.assert_close(ahead, torch.zeros(7, 3), atol=1e-5, rtol=0)


def test_a_circle_goes_round_once_without_repeating_its_first_frame():
    path = make_path("circle", RING, 30)
    steps = torch.remainder(torch.diff(azimuth(path), append=azimuth(path)[:1]), 2 * math.pi)
    torch.testing.assert_close(steps, torch.full((30,), 2 * math.pi / 30), atol=1e-5, rtol=0)


def test_a_circle_through_a_ring_of_cameras_begins_at_the_first_of_them():
    torch.testing.assert_close(make_path("circle", RING, 12), RING, atol=1e-5, rtol=0)


def test_an_arc_runs_from_the_first_to_the_last_camera():
    path = make_path("arc", ARC, 9)
    torch.testing.assert_close(path, ARC, atol=2e-3, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_an_arc_is_upright_and_within_the_cameras_whichever_way_the_scene_lies(seed):
    torch.manual_seed(seed)
    poses = looking_inward(1.0 + 1.5 * torch.rand(20), elevation=0.6)
    path = TURN.mT @ make_path("arc", TURN @ poses, 15)
    assert (path[:, :, 1] @ Z > 0.7).all()  # cos(0.6) = 0.83
    assert (path[:, 2, 0].abs() < 0.02).all()  # a level horizon
    low, high = azimuth(poses).aminmax()
    assert azimuth(path).min() > low - 0.02 and azimuth(path).max() < high + 0.02


def test_an_arc_of_cameras_that_all_face_the_same_way_is_upright():
    poses = looking_inward(torch.zeros(5))
    poses[:, 1, 3] += torch.linspace(-1, 1, 5)
    assert (make_path("arc", poses, 6)[:, 2, 1] > 0.7).all()


def test_an_arc_passes_the_seam_of_the_angles():
    poses = looking_inward(torch.linspace(-0.4, 0.4, 5) + math.pi)
    path = make_path("arc", poses, 8)
    assert (path[:, 0, 3] < -1).all()


def test_a_spiral_rises_from_the_lowest_camera_to_the_highest():
    poses = torch.cat([looking_inward(torch.arange(4.0), elevation) for elevation in (0.1, 0.4, 0.9)])
    path = make_path("spiral", poses, 25)
    elevation = torch.asin(path[:, 2, 3] / path[:, :, 3].norm(dim=1))
    torch.testing.assert_close(elevation, torch.linspace(0.1, 0.9, 25), atol=1e-4, rtol=0)
    # Two whole turns: it ends above where it began.
    torch.testing.assert_close(azimuth(path)[-1], azimuth(path)[0], atol=1e-4, rtol=0)


def test_the_path_is_a_circle_only_where_cameras_stand_all_around():
    torch.testing.assert_close(make_path("auto", RING, 8), make_path("circle", RING, 8))
    torch.testing.assert_close(make_path("auto", ARC, 8), make_path("arc", ARC, 8))


@pytest.mark.parametrize("kind", ["circle", "arc", "spiral"])
def test_one_camera_and_one_frame_are_enough(kind):
    assert make_path(kind, ARC[:1], 1).isfinite().all()
    above = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2]]])  # straight above the origin
    assert make_path(kind, above, 3).isfinite().all()


def test_a_path_without_frames_is_an_error_that_names_the_key():
    with pytest.raises(ConfigError, match="dataset.n_test_traj_steps = 0"):
        make_path("circle", RING, 0)


def test_frames_of_a_path_have_the_lens_of_the_first_photograph_and_no_colours():
    sizes = torch.tensor([[6, 4], [10, 8]])
    like = Cameras(RING[:2], sizes.float() + 1, sizes / 3, sizes, distortion=torch.ones(2, 8))
    views = path_views(make_path("circle", RING, 3), like, 640)
    assert len(views) == 3 and not views.is_real and not views.has_mask
    assert views.cameras.distortion is None
    assert views.cameras.focal.tolist() == [[7, 5]] * 3 and views.size(2) == (6, 4)
    assert views.cameras.center.tolist() == [[3, 2]] * 3
    assert views.image(2, torch.ones(3)).target.color.shape == (24, 3)


def test_frames_of_large_photographs_are_smaller_with_the_same_field_of_view():
    size = torch.tensor([[1000, 600]])
    views = path_views(RING[:1], Cameras(RING[:1], torch.tensor([[900.0, 910]]), size / 2, size), 250)
    assert views.size(0) == (250, 150)
    assert views.cameras.focal.tolist() == [[225, 227.5]] and views.cameras.center.tolist() == [[125, 75]]
    with pytest.raises(ConfigError, match="dataset.test_traj_size = 0; expected at least 1 pixel"):
        path_views(RING[:1], Cameras(RING[:1], torch.tensor([[900.0, 910]]), size / 2, size), 0)
