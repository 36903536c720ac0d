"""Distances between meshes and surfaces whose answer is known in closed form."""

import math

import pytest
import torch
import trimesh

from models.mesh import extract
from systems.geometry_error import distance_to_mesh, geometry_error, sample_surface
from utils.types import Mesh, Surface


def icosphere(radius: float, centre=(0.0, 0.0, 0.0)) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    return Mesh(torch.tensor(body.vertices + centre).float(), torch.tensor(body.faces).long())


def plane(z: float, side: float = 1.0) -> Mesh:
    corner = side / 2 * torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) + torch.tensor([0, 0, z])
    return Mesh(corner, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def unit_sphere(n: int = 20_000) -> Surface:
    generator = torch.Generator().manual_seed(1)
    points = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    return Surface(points, lambda query: (query.norm(dim=-1) - 1).abs(), 2.0)


def test_concentric_spheres_are_apart_by_the_difference_of_their_radii():
    error = geometry_error(icosphere(1.015), unit_sphere())

    for name in ("accuracy", "completeness", "chamfer"):
        assert error[name] == pytest.approx(0.015, rel=0.02)  # the icosphere itself is 0.0002 too small
        assert error[f"{name}_percent"] == pytest.approx(100 * error[name] / 2)
    assert error["f_score_half_percent"] == 0.0  # 0.01 is less than 0.015
    assert error["f_score_one_percent"] == 1.0


def test_a_shifted_sphere_is_wrong_by_half_its_shift():
    # The distance of a point on a sphere shifted by s is |s cos| to first order, whose mean over a sphere is s / 2.
    error = geometry_error(icosphere(1.0, (0, 0, 0.04)), unit_sphere())
    assert error["chamfer"] == pytest.approx(0.02, rel=0.01)
    # Within 0.02 = 1 % lie the points with |cos| < 1/2, half of the sphere.
    assert error["f_score_one_percent"] == pytest.approx(0.5, abs=0.02)


def test_parallel_planes_are_apart_by_their_shift():
    generator = torch.Generator().manual_seed(2)
    points = torch.nn.functional.pad(torch.rand(5000, 2, generator=generator) - 0.5, (0, 1))
    truth = Surface(points, lambda query: query[:, 2].abs(), math.sqrt(2))
    error = geometry_error(plane(0.03), truth, n_points=1000)
    assert error["accuracy"] == pytest.approx(0.03, rel=1e-5)
    assert error["completeness"] == pytest.approx(0.03, rel=1e-5)


def test_half_a_surface_is_accurate_but_not_complete():
    half = extract(lambda points: points.norm(dim=-1) - 1, torch.tensor([[-1.1, -1.1, 0.0], [1.1, 1.1, 1.1]]), 64)
    error = geometry_error(half, unit_sphere())
    assert error["accuracy"] < 1e-3
    # By symmetry, precision 1 and recall a little over 1/2 give an F-score of a little over 2/3.
    assert 0.66 < error["f_score_half_percent"] < 0.69
    assert error["completeness"] > 0.1


def test_distances_to_a_mesh_are_those_of_all_triangles():
    generator = torch.Generator().manual_seed(3)
    # Sizes over three decades, slivers, and triangles without area.
    corner = torch.randn(400, 1, 3, generator=generator)
    triangles = corner + torch.randn(400, 3, 3, generator=generator) * 10 ** (
        -3 * torch.rand(400, 1, 1, generator=generator)
    )
    triangles[:20, 2] = triangles[:20, 1]
    triangles[20:40] = triangles[20:40, :1]
    mesh = Mesh(triangles.reshape(-1, 3), torch.arange(1200).view(-1, 3))
    points = torch.randn(300, 3, generator=generator)

    every = trimesh.triangles.closest_point(
        triangles.repeat(300, 1, 1).double().numpy(), points.repeat_interleave(400, 0).double().numpy()
    )
    expected = (torch.from_numpy(every).view(300, 400, 3) - points[:, None]).norm(dim=-1).amin(dim=1)
    torch.testing.assert_close(distance_to_mesh(points, mesh), expected, rtol=1e-9, atol=1e-12)


def test_a_large_face_is_found_among_many_small_ones():
    small, large = icosphere(0.1, (0.4, 0.0, 1.0)), plane(0.0, side=10.0)
    mesh = Mesh(
        torch.cat([small.vertices, large.vertices]), torch.cat([small.faces, large.faces + len(small.vertices)])
    )
    distance = distance_to_mesh(torch.tensor([[0.4, 0.0, 0.3], [4.0, -4.0, -0.5]]), mesh)
    assert distance.tolist() == pytest.approx([0.3, 0.5])


def test_samples_are_even_by_area_and_repeatable():
    mesh = Mesh(
        torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [10.0, 0, 0], [11, 0, 0], [10, 1, 0]]),
        torch.tensor([[0, 1, 2], [3, 4, 5]]),
    )
    points = sample_surface(mesh, 40_000, seed=4)
    assert (points[:, 0] < 5).float().mean() == pytest.approx(0.75, abs=0.01)
    # Evenly spread over a triangle, the mean is the centroid.
    torch.testing.assert_close(points[points[:, 0] < 5].mean(dim=0), torch.tensor([1.0, 1 / 3, 0]), atol=0.02, rtol=0)
    assert torch.equal(points, sample_surface(mesh, 40_000, seed=4))
