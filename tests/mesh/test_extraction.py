"""Laws of the way from a field to a triangle mesh."""

import math

import pytest
import torch

from models.mesh import EmptySurface, extract, extract_surface, keep_components, report
from utils.types import Mesh

CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3])


def sphere(radius, centre=(0.0, 0.0, 0.0)):
    return lambda points: (points - torch.tensor(centre)).norm(dim=-1) - radius


def torus(points):
    return ((points[:, :2].norm(dim=-1) - 0.6).square() + points[:, 2].square()).sqrt() - 0.2


def two_spheres(points):
    return torch.minimum(sphere(0.4, (-0.5, 0, 0))(points), sphere(0.2, (0.5, 0, 0))(points))


def volume(mesh: Mesh) -> float:
    """Signed, by the divergence theorem: positive where faces wind outward."""
    a, b, c = mesh.vertices[mesh.faces].double().unbind(dim=1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("method", ["mc", "skimage"])
def test_the_mesh_of_a_sphere_is_closed_and_winds_outward(method):
    mesh = extract(sphere(0.7), CUBE, 64, method=method)

    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=2e-3)
    assert report(mesh) | {"vertices": 0, "faces": 0} == {
        "vertices": 0,
        "faces": 0,
        "components": 1,
        "is_watertight": True,
        "euler": 2,
    }
    # Linear interpolation in a cell of width h errs by at most h² / 8 times the curvature, which is 1 / 0.7.
    assert (mesh.vertices.norm(dim=-1) - 0.7).abs().max() < (2 / 63) ** 2 / 8 * 3 / 0.7


def test_normals_point_away_from_the_inside():
    mesh = extract(sphere(0.7), CUBE, 64)
    cosine = (mesh.normals * mesh.vertices / 0.7).sum(dim=-1)
    assert cosine.min() > 0.99


def test_both_marching_cubes_find_the_same_surface():
    one, other = (extract(torus, CUBE, 48, method=method) for method in ("mc", "skimage"))

    assert len(one.vertices) == len(other.vertices) and len(one.faces) == len(other.faces)
    assert volume(one) == pytest.approx(volume(other), rel=1e-4)
    assert torch.cdist(one.vertices.double(), other.vertices.double()).amin(dim=1).max() < 1e-5


def test_an_anisotropic_box_keeps_world_coordinates():
    box = torch.tensor([[-0.9, -0.9, -0.3], [0.9, 0.9, 0.25]])
    mesh = extract(torus, box, 64)
    assert torus(mesh.vertices).abs().max() < 2e-3
    assert volume(mesh) == pytest.approx(2 * math.pi**2 * 0.6 * 0.2**2, rel=1e-2)


def test_a_torus_has_one_handle():
    assert report(extract(torus, CUBE, 48))["euler"] == 0


def test_skipping_empty_space_changes_nothing():
    box = torch.tensor([[-1.0, -0.9, -0.5], [0.9, 1.0, 0.4]])
    for resolution in (2 * 8, 61, 64):
        dense = extract(torus, box, resolution)
        sparse = extract(torus, box, resolution, slope=1.0)
        assert torch.equal(dense.vertices, sparse.vertices) and torch.equal(dense.faces, sparse.faces)


def test_skipping_is_safe_for_a_field_that_is_steeper_than_a_distance():
    def steep(points):
        return 3 * torus(points) + 0.05 * torch.sin(20 * points).prod(dim=-1)

    dense = extract_surface(steep, 1.0, 100)
    sparse = extract_surface(steep, 1.0, 100, is_distance=True)
    assert torch.equal(dense.vertices, sparse.vertices) and torch.equal(dense.faces, sparse.faces)


def test_a_distance_costs_few_evaluations_at_high_resolution():
    n = 0

    def counted(points):
        nonlocal n
        n += len(points)
        return torus(points)

    extract_surface(counted, 1.0, 256, is_distance=True)
    assert n < 0.55 * 256**3  # the coarse pass alone takes an eighth


def test_chunks_bound_the_points_of_a_call_and_change_nothing():
    largest = 0

    def counted(points):
        nonlocal largest
        largest = max(largest, len(points))
        return torus(points)

    pieces = extract(counted, CUBE, 50, chunk=3000, slope=1.0)
    assert largest <= 3000
    assert torch.equal(pieces.vertices, extract(torus, CUBE, 50).vertices)


def test_the_second_pass_refines_the_box_around_the_object():
    small = sphere(0.1, (0.5, 0.2, -0.3))
    mesh = extract_surface(small, 1.0, 65)
    coarse = extract(small, CUBE, 65)
    # The box is 1.2 diameters wide (and a coarse cell at least), so cells are about 2 / 0.24 times smaller.
    assert len(mesh.faces) > 40 * len(coarse.faces)
    assert small(mesh.vertices).abs().max() < small(coarse.vertices).abs().max()


def test_what_the_coarse_grid_misses_is_found_by_the_fine_one():
    # Between nodes of the coarse grid, which lie at odd multiples of 1 / 127.
    speck = sphere(0.0075, (2 / 127, 2 / 127, 2 / 127))
    assert report(extract_surface(speck, 1.0, 400, is_distance=True))["components"] == 1


@pytest.mark.parametrize(("offset", "remedy"), [(0.25, "more than 0.25"), (-3.0, "more than")])
def test_an_empty_surface_tells_the_range_and_what_to_try(offset, remedy):
    with pytest.raises(EmptySurface, match=remedy) as caught:
        extract_surface(lambda points: 0.1 * points[:, 0].abs() + offset, 1.0, 17)
    text = str(caught.value)
    assert "\n" not in text and "model.geometry.isosurface.threshold" in text and "0 NaN" in text


def test_a_field_of_nan_is_an_empty_surface():
    with pytest.raises(EmptySurface, match="all 4913 values of the field are NaN"):
        extract_surface(lambda points: points[:, 0] * math.nan, 1.0, 17)


def test_some_nan_and_infinite_values_count_as_outside_and_inside():
    def broken(points):
        value = sphere(0.5)(points)
        value[points[:, 0] > 0.55] = math.nan
        value[points.norm(dim=-1) < 0.2] = -math.inf
        return value

    with pytest.warns(UserWarning, match="NaN; they count as outside"):
        mesh = extract_surface(broken, 1.0, 33, is_distance=True)
    assert mesh.vertices.isfinite().all()
    assert volume(mesh) == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.02)


def test_the_largest_components_are_kept():
    mesh = extract(two_spheres, CUBE, 64)
    assert report(mesh)["components"] == 2

    large, n_dropped = keep_components(mesh, 1)
    assert n_dropped == 1 and report(large)["components"] == 1
    assert volume(large) == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=2e-2)
    assert large.normals.shape == large.vertices.shape
    for n in (0, 2, 5):
        assert keep_components(mesh, n) == (mesh, 0)


def test_a_surface_that_leaves_the_box_is_not_watertight():
    assert report(extract(sphere(1.2), CUBE, 32))["is_watertight"] is False


def test_a_grid_of_one_node_is_refused():
    with pytest.raises(ValueError, match="at least 2 nodes"):
        extract(torus, CUBE, 1)
