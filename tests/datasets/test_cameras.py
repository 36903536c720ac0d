import math

import cv2
import numpy as np
import pytest
import torch

from datasets.cameras import Cameras
from datasets.lenses import Lens
from tests.datasets.test_lenses import FISHEYE, LENSES, NAMES


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


def lens_camera(values: list[float], is_fisheye: bool, seed: int = 0) -> Cameras:
    """A camera as above with a distorting lens."""
    plain = camera(seed)
    lens = Lens(plain.focal[0], plain.center[0], torch.tensor(values, dtype=torch.float64), is_fisheye)
    return Cameras.with_lenses(plain.pose, [lens], plain.size)


def all_pixels(cameras: Cameras) -> torch.Tensor:
    width, height = cameras.size[0].tolist()
    return torch.cartesian_prod(torch.arange(width), torch.arange(height))


@pytest.mark.parametrize("values, is_fisheye", LENSES, ids=NAMES)
def test_projecting_undoes_unprojecting(values: list[float], is_fisheye: bool):
    cameras = lens_camera(values, is_fisheye)
    pixel = all_pixels(cameras)
    view = torch.zeros(len(pixel), dtype=torch.long)
    origins, directions = cameras.rays(view, pixel)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(len(pixel), dtype=torch.float64))
    torch.manual_seed(0)
    distance = 0.5 + 3 * torch.rand(len(pixel), 1, dtype=torch.float64)
    again, depth = cameras.project(view, origins + distance * directions)
    torch.testing.assert_close(again, pixel.double() + 0.5)
    axis = -cameras.pose[0, :, 2]
    torch.testing.assert_close(depth, distance[:, 0] * (directions @ axis))


@pytest.mark.parametrize("values, is_fisheye", LENSES, ids=NAMES)
def test_cameras_project_as_opencv_has_it(values: list[float], is_fisheye: bool):
    cameras = lens_camera(values, is_fisheye)
    pixel = all_pixels(cameras)[::7]
    view = torch.zeros(len(pixel), dtype=torch.long)
    origins, directions = cameras.rays(view, pixel)
    points = origins + 2 * directions
    # OpenCV takes world to camera, with y down and z forward.
    rotation = (cameras.pose[0, :, :3] * torch.tensor([1, -1, -1])).T
    pose = cv2.Rodrigues(rotation.numpy())[0], -(rotation @ cameras.pose[0, :, 3]).numpy()
    matrix = np.array([[90.0, 0, 33], [0, 110, 21], [0, 0, 1]])
    model = (cv2.fisheye, np.array(values[:4])) if is_fisheye else (cv2, np.array(values))
    expected, _ = model[0].projectPoints(points.numpy()[:, None], *pose, matrix, model[1])
    torch.testing.assert_close(pixel.double() + 0.5, torch.from_numpy(expected[:, 0]), rtol=0, atol=1e-9)


def test_cameras_of_one_set_may_have_all_kinds_of_lenses():
    alone = [lens_camera(values, is_fisheye, seed) for seed, (values, is_fisheye) in enumerate(LENSES)]
    lenses = [
        Lens(one.focal[0] * (seed + 1), one.center[0], torch.tensor(LENSES[seed][0]).double(), LENSES[seed][1])
        for seed, one in enumerate(alone)
    ]
    size = torch.cat([one.size for one in alone])
    together = Cameras.with_lenses(torch.cat([one.pose for one in alone]), lenses, size)
    view = torch.arange(len(alone)).repeat(20)
    torch.manual_seed(0)
    pixel = torch.randint(48, (len(view), 2))
    origins, directions = together.rays(view, pixel)
    torch.testing.assert_close(together.project(view, origins + directions)[0], pixel.double() + 0.5)
    for row, lens in enumerate(lenses):
        own = Cameras.with_lenses(alone[row].pose, [lens], alone[row].size)
        expected = own.rays(torch.zeros(20, dtype=torch.long), pixel[view == row])[1]
        torch.testing.assert_close(directions[view == row], expected)


def test_lenses_that_do_not_distort_leave_a_pinhole_camera():
    plain = camera(0)
    cameras = Cameras.with_lenses(plain.pose, [Lens(plain.focal[0], plain.center[0])], plain.size)
    assert cameras.distortion is None and cameras.is_fisheye is None
    pixel = all_pixels(cameras)
    view = torch.zeros(len(pixel), dtype=torch.long)
    assert torch.equal(cameras.rays(view, pixel)[1], plain.rays(view, pixel)[1])


def test_what_is_behind_a_perspective_camera_is_not_seen_and_has_negative_depth():
    cameras = Cameras(torch.eye(4)[None, :3], torch.ones(1, 2), torch.ones(1, 2), torch.tensor([[2, 2]]))
    points = torch.tensor([[0.0, 0.0, -3.0], [0.5, 0.5, 3.0], [1.0, 0.0, 0.0]])
    pixel, depth = cameras.project(torch.zeros(3, dtype=torch.long), points)
    assert pixel.tolist() == [[1.0, 1.0], [math.inf] * 2, [math.inf] * 2] and depth.tolist() == [3.0, -3.0, 0.0]


def test_a_fisheye_camera_sees_what_is_beside_and_behind():
    cameras = lens_camera(FISHEYE["equidistant"], is_fisheye=True)
    cameras.pose = torch.eye(4, dtype=torch.float64)[None, :3]
    pixel, depth = cameras.project(torch.tensor([0]), torch.tensor([[2.0, 0.0, 2.0]], dtype=torch.float64))
    # 135 degrees from the axis, to the right.
    torch.testing.assert_close(pixel[0], torch.tensor([33 + 90 * 0.75 * math.pi, 21.0], dtype=torch.float64))
    assert depth.tolist() == [-2.0]


def test_what_is_far_beside_a_camera_does_not_appear_in_its_image():
    # 1 - r^2 / 4 is zero at r = 2: by the polynomial alone, such a point would be seen in the middle of the image.
    cameras = lens_camera([-0.25, *[0.0] * 7], is_fisheye=False)
    cameras.pose = torch.eye(4, dtype=torch.float64)[None, :3]
    pixel, _ = cameras.project(torch.tensor([0]), torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64))
    assert pixel.tolist() == [[math.inf] * 2]


def test_the_share_of_an_image_that_its_lens_does_not_reach_is_known():
    # x (1 - x^2 / 2) is at most 0.54: of 64 columns around the middle, those within 0.54 * 64 / 1.2 of it are reached.
    lens = Lens(torch.full((2,), 64 / 1.2), torch.tensor([32.0, 0.5]), torch.tensor([-0.5, *[0.0] * 7]))
    cameras = Cameras.with_lenses(torch.eye(4)[None, :3], [lens], torch.tensor([[64, 1]]))
    assert cameras.unreached(n_places=64).item() == pytest.approx(1 - 0.5443 * 2 / 1.2, abs=0.03)
    assert lens_camera(LENSES[2][0], is_fisheye=False).unreached().item() == 0


def test_a_resized_image_shows_the_same_from_corner_to_corner():
    barrel = Lens(torch.tensor([60.0, 55.0]), torch.tensor([30.0, 25.0]), torch.tensor([-0.1, 0.02, 0, 0, 0, 0, 0, 0]))
    fisheye = Lens(torch.tensor([90.0, 90.0]), torch.tensor([99.0, 52.0]), torch.zeros(8), is_fisheye=True)
    pose = torch.eye(3, 4).repeat(2, 1, 1)
    cameras = Cameras.with_lenses(pose, [barrel, fisheye], torch.tensor([[64, 48], [200, 100]]))
    others = cameras.resized(torch.tensor([[32, 24], [50, 200]]))
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) - torch.tensor([0, 0, 4])
    for view, factors in enumerate(([0.5, 0.5], [0.25, 2.0])):
        rows = torch.full((50,), view)
        (place, depth), (again, same) = (some.project(rows, points) for some in (cameras, others))
        torch.testing.assert_close(again, place * torch.tensor(factors))
        assert torch.equal(depth, same)
