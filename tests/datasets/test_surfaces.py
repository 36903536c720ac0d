from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from datasets.surfaces import cloud_surface, mesh_surface, read_geometry, read_mesh, read_surface
from utils.registry import ConfigError
from utils.types import Mesh


def box(*sides: float) -> Mesh:
    body = trimesh.creation.box(sides)
    return Mesh(torch.tensor(body.vertices), torch.tensor(body.faces).long())


def test_the_distance_to_a_mesh_is_that_to_its_triangles():
    surface = mesh_surface(box(2, 2, 2))
    torch.manual_seed(0)
    points = 4 * torch.rand(500, 3, dtype=torch.float64) - 2
    # A box has a closed form: outside the excess over its sides, inside the nearest side.
    excess = points.abs() - 1
    expected = torch.where((excess > 0).any(-1), excess.clamp(min=0).norm(dim=-1), -excess.amax(-1))
    torch.testing.assert_close(surface.distance(points), expected)
    assert surface.diameter == pytest.approx(2 * 3**0.5)


def test_points_of_a_mesh_lie_evenly_on_it():
    surface = mesh_surface(box(1, 2, 4))
    assert surface.distance(surface.points[::100]).max() < 1e-6
    # Two of the six sides measure 2 x 4 of 28 in all; 0.5 +- five standard deviations.
    is_on_largest = ((surface.points[:, 0].abs() - 0.5).abs() < 1e-6).float().mean()
    assert abs(is_on_largest - 16 / 28) < 5 * (0.25 / len(surface.points)) ** 0.5
    # On a box, a point and its normal have the same largest coordinate, in halves of its sides.
    side = (surface.points / torch.tensor([0.5, 1, 2])).abs().argmax(dim=-1)
    assert torch.equal(side, surface.normals.abs().argmax(dim=-1))


def test_the_distance_to_a_cloud_is_that_to_its_nearest_point():
    torch.manual_seed(0)
    cloud, points = torch.rand(100, 3), torch.rand(50, 3)
    surface = cloud_surface(cloud)
    torch.testing.assert_close(surface.distance(points), torch.cdist(points, cloud).amin(1))
    between = torch.cdist(cloud, cloud).fill_diagonal_(torch.inf).amin(1)
    assert surface.spacing == pytest.approx(between.quantile(0.5).item(), rel=1e-4)


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


def test_coordinates_of_surveys_keep_their_digits(tmp_path: Path):
    (tmp_path / "far.obj").write_text("v 4000000.125 0 0\nv 4000001.25 0 0\nv 4000000 1 0.0625\nf 1 2 3\n")
    assert read_mesh(tmp_path / "far.obj").vertices[:, 0].tolist() == [4000000.125, 4000001.25, 4000000]


def test_what_cannot_be_measured_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.ply does not exist; expected a mesh or point cloud"):
        read_geometry(tmp_path / "none.ply")
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    with pytest.raises(ConfigError, match=r"points\.ply holds 3 points but no triangles; expected a mesh"):
        read_mesh(tmp_path / "points.ply")
    trimesh.Trimesh(np.ones((3, 3)), [[0, 1, 2]], process=False).export(tmp_path / "flat.ply")
    with pytest.raises(ConfigError, match=r"flat\.ply: the 1 triangles of the mesh have no area"):
        read_surface(tmp_path / "flat.ply")
    (tmp_path / "empty.off").write_text("OFF\n0 0 0\n")
    with pytest.raises(ConfigError, match=r"empty\.off"):
        read_geometry(tmp_path / "empty.off")
