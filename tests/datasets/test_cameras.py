import math

import torch

from datasets.cameras import Cameras


def camera(seed: int) -> Cameras:
    """A camera with unequal focal lengths and an off-centre principal point, in a random pose."""
    torch.manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    rotation = rotation * torch.det(rotation)
    pose = torch.cat((rotation, torch.randn(3, 1, dtype=torch.float64)), dim=1)
    return Cameras(
        pose=pose[None],
        focal=torch.tensor([[90.0, 110.0]], dtype=torch.float64),
        center=torch.tensor([[33.0, 21.0]], dtype=torch.float64),
        size=torch.tensor([[64, 48]]),
    )


def project(cameras: Cameras, points: torch.Tensor) -> torch.Tensor:
    """Continuous pixel coordinates of world points, by the textbook: into the camera, divide, scale, shift."""
    local = (points - cameras.pose[0, :, 3]) @ cameras.pose[0, :, :3]
    depth = -local[:, 2]
    u = cameras.focal[0, 0] * local[:, 0] / depth + cameras.center[0, 0]
    v = -cameras.focal[0, 1] * local[:, 1] / depth + cameras.center[0, 1]
    return torch.stack((u, v), dim=-1)


def test_a_point_on_the_ray_of_a_pixel_projects_to_the_centre_of_that_pixel():
    cameras = camera(0)
    pixel = torch.stack((torch.randint(64, (100,)), torch.randint(48, (100,))), dim=-1)
    origins, directions = cameras.rays(torch.zeros(100, dtype=torch.long), pixel)
    distance = 0.5 + 3 * torch.rand(100, 1, dtype=torch.float64)
    torch.testing.assert_close(project(cameras, origins + distance * directions), pixel.double() + 0.5)


def test_rays_start_at_the_camera_and_have_unit_length():
    cameras = camera(1)
    pixel = torch.tensor([[0, 0], [63, 47]])
    origins, directions = cameras.rays(torch.tensor([0, 0]), pixel)
    torch.testing.assert_close(origins, cameras.pose[[0, 0], :, 3])
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, dtype=torch.float64))


def test_an_unrotated_camera_looks_along_minus_z_with_x_right_and_y_up():
    cameras = Cameras(torch.eye(4)[None, :3], torch.ones(1, 2), torch.full((1, 2), 1.0), torch.tensor([[2, 2]]))
    _, directions = cameras.rays(torch.tensor([0]), torch.tensor([[1, 0]]))  # the upper right of four pixels
    # Its centre is half a pixel right of and above the principal point, one focal length away.
    expected = torch.tensor([[0.5, 0.5, -1.0]]) / math.sqrt(1.5)
    torch.testing.assert_close(directions, expected)


def test_no_rays_at_all_are_no_error():
    origins, directions = camera(2).rays(torch.zeros(0, dtype=torch.long), torch.zeros(0, 2, dtype=torch.long))
    assert origins.shape == directions.shape == (0, 3)
