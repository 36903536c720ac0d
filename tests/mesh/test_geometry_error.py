"""Distances between meshes and surfaces whose answer is known in closed form."""

import math

import pytest
import torch
import trimesh

from datasets.surfaces import mesh_surface
from models.mesh import extract
from systems.geometry_error import THRESHOLDS, MeshPoints, geometry_error, threshold
from utils.registry import ConfigError
from utils.triangles import draw_points
from utils.types import Mesh, Surface


def icosphere(radius: float, centre=(0.0, 0.0, 0.0)) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(torch.tensor(body.vertices + centre).float(), torch.tensor(body.faces).long())


def plane(z: float, side: float = 1.0) -> Mesh:
    corner = side / 2 * torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) + torch.tensor([0, 0, z])
    return Mesh(corner, torch.tensor([[0, 1, 2], [0, 2, 3]]))


def unit_sphere(n: int = 10_000) -> Surface:
    generator = torch.Generator().manual_seed(1)
    points = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    return Surface(points, lambda query: (query.norm(dim=-1) - 1).abs(), 2.0, normals=points)


def error_of(mesh: Mesh, truth: Surface, *thresholds: str) -> dict[str, float]:
    drawn = MeshPoints(*draw_points(mesh, 10_000, seed=0))
    return geometry_error(mesh, truth, thresholds or THRESHOLDS, drawn)


def test_concentric_spheres_are_apart_by_the_difference_of_their_radii():
    error = error_of(icosphere(1.015), unit_sphere())

    for name in ("accuracy", "completeness", "chamfer"):
        assert error[name] == pytest.approx(0.015, rel=0.06)  # the icosphere itself is 0.0006 too small
        assert error[f"{name}_percent"] == pytest.approx(100 * error[name] / 2)
    assert error["f_score@0.5%"] == 0.0  # 0.01 is less than 0.015
    assert error["f_score@1%"] == 1.0


def test_a_shifted_sphere_is_wrong_by_half_its_shift():
    # The distance of a point on a sphere shifted by s is |s cos| to first order, whose mean over a sphere is s / 2.
    error = error_of(icosphere(1.0, (0, 0, 0.04)), unit_sphere())
    assert error["chamfer"] == pytest.approx(0.02, rel=0.01)
    # Within 0.02 = 1 % lie the points with |cos| < 1/2, half of the sphere.
    assert error["f_score@1%"] == pytest.approx(0.5, abs=0.02)


def test_parallel_planes_are_apart_by_their_shift():
    generator = torch.Generator().manual_seed(2)
    points = torch.nn.functional.pad(torch.rand(5000, 2, generator=generator) - 0.5, (0, 1))
    truth = Surface(points, lambda query: query[:, 2].abs(), math.sqrt(2))
    error = error_of(plane(0.03), truth)
    assert error["accuracy"] == pytest.approx(0.03, rel=1e-5)
    assert error["completeness"] == pytest.approx(0.03, rel=1e-5)
    assert error["normal_consistency"] == pytest.approx(1.0)


def test_planes_at_an_angle_have_the_cosine_of_it_between_their_normals():
    angle = math.radians(30)
    tilted = plane(0.0)
    turn = torch.tensor([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    tilted.vertices = tilted.vertices @ turn.T
    # Wound the other way round: the side that a face shows does not matter.
    truth = plane(0.0, side=3.0)
    error = error_of(tilted, mesh_surface(Mesh(truth.vertices, truth.faces.flip(1))))
    assert error["normal_consistency"] == pytest.approx(math.cos(angle))


def test_half_a_surface_is_accurate_but_not_complete():
    half = extract(lambda points: points.norm(dim=-1) - 1, torch.tensor([[-1.1, -1.1, 0.0], [1.1, 1.1, 1.1]]), 64)
    error = error_of(half, unit_sphere())
    assert error["accuracy"] < 1e-3
    # By symmetry, precision 1 and recall a little over 1/2 give an F-score of a little over 2/3.
    assert 0.66 < error["f_score@0.5%"] < 0.69
    assert error["completeness"] > 0.1


def test_thresholds_are_lengths_or_shares_of_the_diameter():
    error = error_of(icosphere(1.015), unit_sphere(), "0.016", "0.013", "0.8%")
    assert error["thresholds"] == {"0.016": 0.016, "0.013": 0.013, "0.8%": pytest.approx(0.016)}
    for word, share in (("0.016", 1.0), ("0.013", 0.0), ("0.8%", 1.0)):
        assert error[f"precision@{word}"] == error[f"recall@{word}"] == error[f"f_score@{word}"] == share


def test_precision_and_recall_are_shares_of_points_within_the_threshold():
    truth = Surface(torch.zeros(1, 3), lambda query: query[:, 0].abs(), 2.0)
    position = torch.tensor([[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0], [0.5, 0, 0]], dtype=torch.float64)
    # The one point of the truth lies 0.03 below the mesh: recall is 1 from there on.
    error = geometry_error(plane(0.03), truth, ["0.01", "0.2", "0.3"], MeshPoints(position, torch.zeros(4).long()))
    assert [error[f"precision@{word}"] for word in ("0.01", "0.2", "0.3")] == [0.0, 0.5, 0.75]
    assert [error[f"recall@{word}"] for word in ("0.01", "0.2", "0.3")] == [0.0, 1.0, 1.0]
    assert [error[f"f_score@{word}"] for word in ("0.01", "0.2", "0.3")] == pytest.approx([0.0, 2 / 3, 6 / 7])
    assert error["n_points"] == 4 and error["n_truth_points"] == 1


@pytest.mark.parametrize("word", ["0", "-1", "0%", "-2%", "near", "nan", "inf", "%", ""])
def test_a_threshold_that_is_no_positive_length_is_refused(word: str):
    with pytest.raises(ConfigError, match=f"^threshold {word}: expected a positive length"):
        threshold(word, 2.0)
