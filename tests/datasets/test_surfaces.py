from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from datasets.surfaces import cloud_surface, mesh_surface, read_surface
from utils.registry import ConfigError


def test_the_distance_to_a_mesh_is_that_to_its_triangles():
    surface = mesh_surface(trimesh.creation.box((2, 2, 2)))
    torch.manual_seed(0)
    points = 4 * torch.rand(500, 3, dtype=torch.float64) - 2
    # A box has a closed form: outside the excess over its sides, inside the nearest side.
    excess = points.abs() - 1
    expected = torch.where((excess > 0).any(-1), excess.clamp(min=0).norm(dim=-1), -excess.amax(-1))
    torch.testing.assert_close(surface.distance(points), expected)
    assert surface.diameter == pytest.approx(2 * 3**0.5)


def test_points_of_a_mesh_lie_evenly_on_it():
    surface = mesh_surface(trimesh.creation.box((1, 2, 4)))
    assert surface.distance(surface.points[::100]).max() < 1e-6
    # Two of the six sides measure 2 x 4 of 28 in all; 0.5 +- five standard deviations.
    is_on_largest = ((surface.points[:, 0].abs() - 0.5).abs() < 1e-6).float().mean()
    assert abs(is_on_largest - 16 / 28) < 5 * (0.25 / len(surface.points)) ** 0.5


def test_the_distance_to_a_cloud_is_that_to_its_nearest_point():
    torch.manual_seed(0)
    cloud, points = torch.rand(100, 3), torch.rand(50, 3)
    torch.testing.assert_close(cloud_surface(cloud).distance(points), torch.cdist(points, cloud).amin(1))


@pytest.mark.parametrize("ending", ["ply", "obj", "stl"])
def test_meshes_are_read_from_files(tmp_path: Path, ending: str):
    trimesh.creation.icosphere(subdivisions=4).export(tmp_path / f"sphere.{ending}")
    surface = read_surface(tmp_path / f"sphere.{ending}")
    torch.testing.assert_close(
        surface.distance(torch.tensor([[0.0, 0.0, 3.0]])), torch.tensor([2.0]), atol=1e-3, rtol=0
    )


def test_point_clouds_are_read_from_files(tmp_path: Path):
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    assert read_surface(tmp_path / "points.ply").points.tolist() == np.eye(3).tolist()


def test_a_file_that_is_no_surface_is_named(tmp_path: Path):
    (tmp_path / "points.ply").write_text("not a surface")
    with pytest.raises(ConfigError, match=r"points\.ply cannot be read as a mesh or point cloud"):
        read_surface(tmp_path / "points.ply")
