import math

import cv2
import numpy as np
import pytest
import torch

from datasets.lenses import Lens, at_sizes, distort, undistort
from utils.registry import ConfigError

PERSPECTIVE = {
    "pinhole": [0.0] * 8,
    "radial": [-0.2, 0.05, 0, 0, 0, 0, 0, 0],
    "phone": [0.0578421, -0.0805099, -0.000980296, 0.00015575, 0, 0, 0, 0],
    "pincushion": [0.3, 0.1, 0.002, -0.003, 0.05, 0, 0, 0],
    "rational": [0.9, 0.2, 0.001, -0.0005, 0.02, 1.3, 0.4, 0.05],
}
FISHEYE = {
    "equidistant": [0.0] * 8,
    "action camera": [0.05, -0.01, 0.003, -0.001, 0, 0, 0, 0],
    "strong": [-0.12, 0.02, -0.004, 0.0003, 0, 0, 0, 0],
}
LENSES = [(values, False) for values in PERSPECTIVE.values()] + [(values, True) for values in FISHEYE.values()]
NAMES = [*PERSPECTIVE, *FISHEYE]


def rows(values: list[float], n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).expand(n, 8)


def directions(n: int, widest: float) -> torch.Tensor:
    """Unit directions up to an angle from the axis, the axis itself among them."""
    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(n, generator=generator, dtype=torch.float64) * widest
    around = torch.rand(n, generator=generator, dtype=torch.float64) * 2 * math.pi
    angle[0] = 0
    return torch.stack((angle.sin() * around.cos(), angle.sin() * around.sin(), angle.cos()), dim=-1)


@pytest.mark.parametrize("values", PERSPECTIVE.values(), ids=PERSPECTIVE)
def test_perspective_lenses_distort_as_opencv_has_it(values: list[float]):
    direction = directions(200, widest=0.7)
    expected, _ = cv2.projectPoints(direction.numpy(), np.zeros(3), np.zeros(3), np.eye(3), np.array(values))
    found = distort(3 * direction, rows(values, 200), None)
    torch.testing.assert_close(found, torch.from_numpy(expected[:, 0]))


@pytest.mark.parametrize("values", FISHEYE.values(), ids=FISHEYE)
def test_fisheyes_distort_as_opencv_has_it(values: list[float]):
    direction = directions(200, widest=1.5)
    point = direction.numpy()[:, None]
    expected, _ = cv2.fisheye.projectPoints(point, np.zeros(3), np.zeros(3), np.eye(3), np.array(values[:4]))
    found = distort(3 * direction, rows(values, 200), torch.ones(200, dtype=torch.bool))
    torch.testing.assert_close(found, torch.from_numpy(expected[:, 0]))


@pytest.mark.parametrize("values, is_fisheye", LENSES, ids=NAMES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_undistorting_is_the_inverse_of_distorting(
    values: list[float], is_fisheye: bool, dtype: torch.dtype, tolerance: float
):
    direction = directions(500, widest=1.6 if is_fisheye else 0.75).to(dtype)
    lens = rows(values, 500, dtype), torch.full((500,), is_fisheye)
    found = undistort(distort(direction, *lens), *lens)
    assert found.dtype == dtype
    torch.testing.assert_close(found, direction, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(500, dtype=dtype))


def test_a_fisheye_sees_behind_itself():
    direction = torch.tensor([[1.0, 0.0, -0.5]], dtype=torch.float64)
    lens = rows(FISHEYE["equidistant"], 1), torch.tensor([True])
    point = distort(direction, *lens)
    # Equidistant: the distance from the middle is the angle, here a right one and atan(1/2) more.
    torch.testing.assert_close(point[0, 0].item(), math.pi / 2 + math.atan(0.5))
    torch.testing.assert_close(undistort(point, *lens), direction / math.hypot(1, 0.5))


def test_each_row_has_its_own_lens():
    direction = directions(len(LENSES), widest=0.7)
    coefficients = torch.tensor([values for values, _ in LENSES], dtype=torch.float64)
    is_fisheye = torch.tensor([is_fisheye for _, is_fisheye in LENSES])
    together = distort(direction, coefficients, is_fisheye)
    for row in range(len(LENSES)):
        alone = distort(direction[row : row + 1], coefficients[row : row + 1], is_fisheye[row : row + 1])
        torch.testing.assert_close(together[row], alone[0])
    torch.testing.assert_close(undistort(together, coefficients, is_fisheye), direction)


def test_a_point_that_no_ray_meets_gives_some_finite_direction():
    # x (1 - x^2 / 2) is at most 0.54.
    point = torch.tensor([[0.6, 0.0], [5.0, 5.0], [0.0, -100.0]])
    for is_fisheye in (False, True):
        direction = undistort(point, rows([-0.5, *[0] * 7], 3, torch.float32), torch.full((3,), is_fisheye))
        torch.testing.assert_close(direction.norm(dim=-1), torch.ones(3))


def test_no_directions_at_all_are_no_error():
    nothing = torch.zeros(0, 8), torch.zeros(0, dtype=torch.bool)
    assert distort(torch.zeros(0, 3), *nothing).shape == (0, 2)
    assert undistort(torch.zeros(0, 2), *nothing).shape == (0, 3)


def test_a_lens_scales_with_its_image_but_its_distortion_does_not():
    lens = Lens(torch.tensor([100.0, 90.0]), torch.tensor([50.0, 40.0]), rows(PERSPECTIVE["phone"], 1).float()[0])
    half = lens.scaled(0.5, 0.25)
    assert half.focal.tolist() == [50.0, 22.5] and half.center.tolist() == [25.0, 10.0]
    torch.testing.assert_close(half.distortion, lens.distortion)


def test_only_pinholes_do_not_distort():
    focal = center = torch.ones(2)
    assert not Lens(focal, center).distorts
    assert Lens(focal, center, is_fisheye=True).distorts
    assert Lens(focal, center, rows(PERSPECTIVE["phone"], 1).float()[0]).distorts


@pytest.mark.parametrize("values", PERSPECTIVE.values(), ids=PERSPECTIVE)
def test_a_part_of_a_photograph_shows_what_the_whole_shows_there(values: list[float]):
    lens = Lens(torch.tensor([50.0, 60.0]), torch.tensor([32.0, 24.0]), torch.tensor(values))
    part = lens.cropped(10, 7)
    place = torch.tensor([[15.5, 9.5]])
    whole, cropped = (
        undistort((at - one.center) / one.focal, one.distortion[None], None)
        for one, at in ((lens, place), (part, place - torch.tensor([10, 7])))
    )
    torch.testing.assert_close(cropped, whole)


def test_a_lens_serves_photographs_of_any_size_with_its_aspect():
    lens = at_sizes(Lens(torch.tensor([50.0, 60.0]), torch.tensor([32.0, 24.0])), 64, 48, 1, "here")
    torch.testing.assert_close(lens(32, 24).center, torch.tensor([16.0, 12.0]))
    with pytest.raises(
        ConfigError, match="here: the photograph is 32x32, but its camera was estimated for 64x48; take"
    ):
        lens(32, 32)
