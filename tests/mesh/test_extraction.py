"""Laws of the way from a field to a triangle mesh."""

import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import scipy.spatial
import skimage.measure
import torch

from models.bricks import Bricks
from models.marching_cubes import _table
from models.mesh import EmptySurface, extract, extract_surface, report
from utils.types import Mesh

CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3])


def sphere(radius, centre=(0.0, 0.0, 0.0)):
    return lambda points: (points - torch.tensor(centre)).norm(dim=-1) - radius


def torus(points):
    return ((points[:, :2].norm(dim=-1) - 0.6).square() + points[:, 2].square()).sqrt() - 0.2


def two_spheres(points):
    return torch.minimum(sphere(0.4, (-0.5, 0, 0))(points), sphere(0.2, (0.5, 0, 0))(points))


def dots(points):
    """Two balls that lie where eight bricks of a grid of 65 nodes meet, and reach the centre of none."""
    return torch.minimum(sphere(0.06, (0.5, 0.5, 0.5))(points), sphere(0.06, (0.5, 0.5, -0.5))(points))


def plate(points):
    """Three cells of a grid of 65 nodes thick."""
    return (points.abs() - torch.tensor([0.7, 0.6, 0.045])).amax(dim=-1)


def volume(mesh: Mesh) -> float:
    """Signed, by the divergence theorem: positive where faces wind outward."""
    a, b, c = mesh.vertices[mesh.faces].double().unbind(dim=1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def library(level, box, resolution):
    """Vertices and faces of PyMCubes, or of scikit-image where that is missing, of a grid that is asked everywhere."""
    axes = [torch.linspace(*box[:, i].tolist(), resolution) for i in range(3)]
    values = level(torch.cartesian_prod(*axes)).view(resolution, resolution, resolution)
    values = torch.where(values == 0, 1e-12, values).numpy()  # a node on the surface counts as outside
    try:
        import mcubes

        nodes, faces = mcubes.marching_cubes(values, 0.0)
    except ImportError:
        nodes, faces, _, _ = skimage.measure.marching_cubes(values, 0.0, method="lorensen", gradient_direction="ascent")
    step = (box[1] - box[0]).double() / (resolution - 1)
    return box[0].double() + step * torch.tensor(nodes), torch.tensor(faces.astype("int64")).flip(dims=[1])


def assert_same_surface(mesh: Mesh, vertices, faces) -> None:
    """The same vertices and triangles up to their order; vertices in one place may stand for each other."""
    assert len(mesh.vertices) == len(vertices) and len(mesh.faces) == len(faces)
    assert scipy.spatial.KDTree(vertices).query(mesh.vertices.double())[0].max() < 2e-6
    ours, theirs = mesh.vertices.double()[mesh.faces], vertices[faces]
    distance, row = scipy.spatial.KDTree(theirs.mean(dim=1)).query(ours.mean(dim=1))
    assert distance.max() < 2e-6
    one, other = (torch.linalg.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]) for c in (ours, theirs[row]))
    assert (one - other).norm(dim=-1).max() < 1e-6


@pytest.fixture
def torchmcubes(monkeypatch):
    """A stand-in that speaks as the library does: tensors, and the last axis is called x."""
    module = ModuleType("torchmcubes")
    module.__spec__ = ModuleSpec("torchmcubes", None)

    def marching_cubes(volume, threshold):
        nodes, faces, _, _ = skimage.measure.marching_cubes(volume.numpy(), threshold, method="lorensen")
        return torch.tensor(nodes.copy()).flip(dims=[1]), torch.tensor(faces.copy()).int()

    module.marching_cubes = marching_cubes
    monkeypatch.setitem(sys.modules, "torchmcubes", module)
    _table.cache_clear()
    yield
    _table.cache_clear()


@pytest.mark.parametrize("method", ["mc", "skimage", "mc-torch"])
def test_the_mesh_of_a_sphere_is_closed_and_winds_outward(method, torchmcubes):
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


@pytest.mark.parametrize("method", ["skimage", "mc-torch"])
def test_all_libraries_give_the_same_surface(method, torchmcubes):
    one, other = extract(torus, CUBE, 48), extract(torus, CUBE, 48, method=method)
    assert torch.equal(one.vertices, other.vertices) and len(one.faces) == len(other.faces)
    assert volume(one) == pytest.approx(volume(other), rel=1e-4)


def test_an_anisotropic_box_keeps_world_coordinates():
    box = torch.tensor([[-0.9, -0.9, -0.3], [0.9, 0.9, 0.25]])
    mesh = extract(torus, box, 64)
    assert torus(mesh.vertices).abs().max() < 2e-3
    assert volume(mesh) == pytest.approx(2 * math.pi**2 * 0.6 * 0.2**2, rel=1e-2)


def test_a_torus_has_one_handle():
    assert report(extract(torus, CUBE, 48))["euler"] == 0


@pytest.mark.parametrize("resolution", [2 * 8, 61, 65])
@pytest.mark.parametrize(
    "level",
    [
        sphere(0.6),
        sphere(0.5, (0.25, -0.5, 0.0)),
        torus,
        two_spheres,
        plate,
        lambda points: points[:, 0] - 0.25,  # zero at nodes on the border of bricks
        lambda points: 3 * torus(points) + 0.05 * torch.sin(20 * points).prod(dim=-1),
    ],
    ids=["sphere", "centred on a border", "torus", "parts", "plate", "plane", "rough"],
)
def test_skipping_empty_space_gives_what_a_library_makes_of_the_whole_grid(level, resolution):
    box = CUBE if resolution == 65 else torch.tensor([[-1.0, -0.9, -0.5], [0.9, 1.0, 0.45]])
    mesh = extract(level, box, resolution, is_distance=True)
    assert_same_surface(mesh, *library(level, box, resolution))


def test_every_pattern_of_signs_is_cut_as_the_library_cuts_it():
    values = torch.randn(20, 20, 20, generator=torch.Generator().manual_seed(0))

    def noise(points):
        x, y, z = ((points + 1) * 9.5).round().long().unbind(-1)
        return values[x, y, z]

    mesh = extract(noise, CUBE, 20)
    assert_same_surface(mesh, *library(noise, CUBE, 20))
    # A cube of air around it: closed, though most cells are ambiguous.
    values[[0, -1]] = values[:, [0, -1]] = values[:, :, [0, -1]] = 1.0
    for method in ("mc", "skimage"):
        assert report(extract(noise, CUBE, 20, method=method))["is_watertight"]


def test_what_is_found_of_a_surface_is_found_whole_however_bad_the_guess():
    asked = torch.tensor([[0.6, 0.0, 0.2]])  # on the torus

    def nowhere(points, reach):
        return torch.zeros(len(points), dtype=torch.bool)

    mesh = extract(torus, CUBE, 65, may_hold=nowhere, seen=asked)
    assert_same_surface(mesh, *library(torus, CUBE, 65))
    assert report(extract(dots, CUBE, 65, may_hold=nowhere, seen=torch.tensor([[0.5, 0.5, 0.5]])))["components"] == 1


def test_a_bound_says_where_to_look():
    told = []

    def upper_half(points, reach):
        told.append(reach)
        return points[:, 2] > 0

    mesh = extract(dots, CUBE, 65, may_hold=upper_half)
    assert report(mesh)["components"] == 1 and mesh.vertices[:, 2].min() > 0.4
    assert told == [pytest.approx(3.5 * 2 / 64)]  # from the centre of 8 nodes to the outer ones


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
    assert n < 0.45 * 256**3  # the coarse pass alone takes an eighth


def test_values_are_kept_around_the_surface_only():
    bricks = Bricks(sphere(0.7), CUBE, 128, 2**16)
    bricks.ask(bricks.all())
    bricks.follow()
    # Of the bricks, which are 1 / 16 of the cube wide, about 1.5 for each square of that side hold the surface.
    assert len(bricks) < 2 * 4 * math.pi * (0.7 / 2 * 16) ** 2
    assert bricks.n_asked < 1.3 * 128**3


def test_chunks_bound_the_points_of_a_call_and_change_nothing():
    largest = 0

    def counted(points):
        nonlocal largest
        largest = max(largest, len(points))
        return torus(points)

    pieces = extract(counted, CUBE, 50, chunk=3000, is_distance=True)
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
    with pytest.raises(EmptySurface, match="all values of the field are NaN"):
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


def test_a_surface_that_leaves_the_box_is_not_watertight():
    assert report(extract(sphere(1.2), CUBE, 32))["is_watertight"] is False


def test_a_grid_of_one_node_is_refused():
    with pytest.raises(ValueError, match="at least 2 nodes"):
        extract(torus, CUBE, 1)
