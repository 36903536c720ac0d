import math

import pytest
import torch
from scipy.spatial import KDTree
from skimage.measure import label, marching_cubes

from datasets import knot
from datasets.studio import paint

DIAMETER = 2 * knot.RADIUS


def random_places(n: int) -> torch.Tensor:
    torch.manual_seed(0)
    return 2 * math.pi * torch.rand(2, n, dtype=torch.float64) * torch.tensor([[3.0], [1.0]])


def gradient(points: torch.Tensor) -> torch.Tensor:
    return knot.gradient(points, knot.rope_coordinates(points))


def test_the_parametric_and_the_implicit_form_are_one_surface():
    points = knot.surface_point(*random_places(10_000))
    assert knot.signed_distance(points).abs().max() < 1e-13
    assert points.norm(dim=0).max() <= knot.RADIUS
    assert (points.abs() <= torch.tensor(knot.BOX)[:, None]).all()


def test_the_gradient_is_the_derivative_of_the_signed_distance():
    torch.manual_seed(0)
    points = (2.4 * torch.rand(3, 5_000, dtype=torch.float64) - 1.2).requires_grad_()
    (expected,) = torch.autograd.grad(knot.signed_distance(points).sum(), points)
    torch.testing.assert_close(gradient(points.detach()), expected)


def test_the_surface_stays_out_of_the_clearance():
    torch.manual_seed(0)
    points = 2.4 * torch.rand(3, 10_000) - 1.2
    clearance = knot.clearance(points)
    assert (clearance < knot.knot_surface().distance(points.T)).logical_or(clearance < 0).all()
    # Close to the surface it is the slope that counts, and nowhere is it as steep.
    surface = knot.surface_point(*random_places(100_000)).requires_grad_()
    (slope,) = torch.autograd.grad(knot.clearance(surface).sum(), surface)
    assert slope.norm(dim=0).max() < 1


def test_the_surface_is_one_closed_sheet_with_one_handle():
    spacing = 0.02
    half = torch.tensor(knot.BOX) + 2 * spacing
    axes = [torch.arange(-h.item(), h.item(), spacing) for h in half]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    value = knot.signed_distance(grid.reshape(3, -1)).view(grid.shape[1:]).numpy()
    # Neither pieces that float about nor cavities inside.
    assert label(value < 0, connectivity=1).max() == 1 and label(value > 0, connectivity=1).max() == 1
    vertices, faces, _, _ = marching_cubes(value, 0.0)
    edges = {tuple(sorted(edge)) for face in faces.tolist() for edge in zip(face, face[1:] + face[:1], strict=True)}
    assert len(vertices) - len(edges) + len(faces) == 0  # 2 - 2 * genus


@pytest.mark.parametrize("turn", [0.0, 1.0, 6.0, 7.0, 12.0])
def test_relief_and_stripes_are_finer_than_one_thirtieth_and_one_sixtieth(turn: float):
    # Once around the rope, where it faces outward: the strongest wave of the relief, and of the paint beside it.
    # Both run along the rope as well, which only makes them finer.
    n = 4096
    around = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    points = knot.surface_point(torch.full((n,), turn, dtype=torch.float64), around).float()
    at = knot.rope_coordinates(points)
    girth = 2 * math.pi * at.radius.max().item()
    relief = torch.fft.rfft(at.radius - at.radius.mean()).abs()
    assert girth / relief.argmax().item() < DIAMETER / 30

    color = paint(points, at).mean(0)
    waves = torch.fft.rfft(color - color.mean()).abs()
    waves[[1, knot.BUMPS_AROUND]] = 0  # colours of the lobes and of the grooves
    assert girth / waves.argmax().item() < DIAMETER / 60


def test_the_distance_is_exact_near_the_surface():
    points = knot.surface_point(*random_places(2_000))
    normal = torch.nn.functional.normalize(gradient(points), dim=0)
    distance = knot.knot_surface().distance
    assert distance(points.T).max() < 1e-6
    for offset in (0.001, -0.001):
        # Bumps bend less than this, so the foot of the perpendicular is the point itself.
        error = distance((points + offset * normal).T) - abs(offset)
        assert error.abs().max() < 1e-5


def test_the_distance_is_that_to_the_nearest_of_many_points_elsewhere():
    torch.manual_seed(0)
    points = 2.4 * torch.rand(2_000, 3, dtype=torch.float64) - 1.2
    dense = KDTree(knot.surface_point(*random_places(1_000_000)).T.numpy())
    error = knot.knot_surface().distance(points) - torch.from_numpy(dense.query(points.numpy())[0])
    assert error.max() < 0.004 and error.clamp(min=0).mean() < 1e-5
    assert error.min() > -0.005  # the samples' own spacing


def test_the_points_of_the_surface_are_spread_evenly():
    surface = knot.knot_surface()
    assert len(surface.points) >= 100_000
    assert knot.signed_distance(surface.points.T).abs().max() < 1e-5
    assert surface.diameter == DIAMETER
    # Equal patches hold equally many: compare the octants with their areas on a grid of small parallelograms.
    turn, around = torch.meshgrid(torch.arange(3000) + 0.5, torch.arange(400) + 0.5, indexing="ij")
    places = torch.stack((turn.reshape(-1) * 6 * math.pi / 3000, around.reshape(-1) * 2 * math.pi / 400)).double()
    area = torch.linalg.cross(*knot._tangents(places), dim=0).norm(dim=0)

    def octant(points: torch.Tensor) -> torch.Tensor:
        return ((points > 0).long() * torch.tensor([[1], [2], [4]])).sum(0)

    share = torch.bincount(octant(surface.points.T), minlength=8) / len(surface.points)
    expected = torch.bincount(octant(knot.surface_point(*places)), weights=area, minlength=8) / area.sum()
    assert (share - expected).abs().max() < 0.002
