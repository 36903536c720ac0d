import numpy as np
import pytest
import torch

from utils import point_clouds
from utils.point_clouds import fitted_normals, spacing, thinned, voxel_means


def thinned_one_by_one(points: np.ndarray, radius: float) -> list[int]:
    kept: list[int] = []
    for row, point in enumerate(points):
        if all(np.linalg.norm(points[other] - point) > radius for other in kept):
            kept.append(row)
    return kept


@pytest.mark.parametrize("first, largest", [(4, 4), (8, 64), (4096, 2**20)])
def test_batches_thin_a_cloud_as_the_loop_over_its_points_does(monkeypatch, first: int, largest: int):
    monkeypatch.setattr(point_clouds, "FIRST", first)
    monkeypatch.setattr(point_clouds, "LARGEST", largest)
    generator = np.random.default_rng(0)
    # Dense and sparse places, and points that are there twice.
    points = generator.normal(size=(400, 3)) * generator.uniform(0.05, 1, size=(400, 1))
    points = generator.permutation(np.concatenate([points, points[:50]]))
    expected = thinned_one_by_one(points, 0.15)
    assert 50 < len(expected) < 350
    assert thinned(points, 0.15).tolist() == expected


def test_points_exactly_at_the_radius_are_removed(monkeypatch):
    line = np.array([[0.0, 0, 0], [0.25, 0, 0], [0.5, 0, 0]])
    assert thinned(line, 0.25).tolist() == [0, 2]
    monkeypatch.setattr(point_clouds, "FIRST", 1)  # kept before, not in the same batch
    assert thinned(line, 0.25).tolist() == [0, 2]
    assert thinned(line, np.nextafter(0.25, 0)).tolist() == [0, 1, 2]


def test_an_empty_cloud_stays_empty():
    assert thinned(np.zeros((0, 3)), 0.1).tolist() == []


def test_a_voxel_holds_the_mean_of_its_points():
    points = np.array([[0.0, 0, 0], [0.1, 0.3, 0], [1.2, 0, 0], [0, 0, 7.5]])
    means = voxel_means(points, 1.0)
    assert sorted(means.round(9).tolist()) == [[0, 0, 7.5], [0.05, 0.15, 0], [1.2, 0, 0]]


def test_fitted_normals_are_those_of_a_sphere():
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(5000, 3, generator=generator).double(), dim=-1)
    cosine = (fitted_normals(points) * points).sum(-1).abs()
    assert cosine.mean() > 0.999 and cosine.min() > 0.98


def test_the_spacing_of_a_grid_is_its_step():
    grid = 0.25 * torch.cartesian_prod(torch.arange(20), torch.arange(20), torch.arange(1)).double()
    assert spacing(grid) == 0.25
    assert spacing(grid[:1]) == 0.0
