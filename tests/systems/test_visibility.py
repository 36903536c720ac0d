import pytest
import torch
import trimesh

from datasets import surfaces
from datasets.cameras import Cameras
from datasets.surfaces import cloud_surface, mesh_surface
from datasets.synthetic import look_at_origin, spiral
from datasets.views import Views, pixel_offsets
from systems.visibility import seen_points, seen_surface, unhidden
from tests.moved import TO_DATASET
from utils.registry import ConfigError
from utils.similarity import carried
from utils.types import Mesh


def cameras(position: torch.Tensor, size: int = 64) -> Cameras:
    """Pinholes that look at the origin and see 0.5 to either side of an object at their distance of 4."""
    shape = (len(position), 2)
    return Cameras(
        look_at_origin(position), torch.full(shape, 1.6 * size), torch.full(shape, size / 2), torch.full(shape, size)
    )


def views(position: torch.Tensor, to_dataset: torch.Tensor | None = None) -> Views:
    eyes = cameras(position)
    return Views(eyes, [str(row) for row in range(len(eyes))], pixel_offsets(eyes.size), None, to_dataset=to_dataset)


AROUND = 4 * spiral(8, seed=0)
ONE = torch.tensor([[4.0, 0, 0]])


def ball(radius: float, subdivisions: int = 3) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Mesh(torch.tensor(body.vertices), torch.tensor(body.faces).long())


def together(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(torch.cat([a.vertices, b.vertices]), torch.cat([a.faces, b.faces + len(a.vertices)]))


def test_an_inner_shell_is_not_seen():
    mesh = together(ball(0.5), ball(1.0))
    seen = seen_points(mesh, views(AROUND), 4000, seed=0)
    assert len(seen.face) == 4000 and (seen.face >= 1280).all()
    corner = mesh.vertices[mesh.faces[seen.face]]
    normal = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    off_plane = ((seen.position - corner[:, 0]) * torch.nn.functional.normalize(normal, dim=-1)).sum(-1)
    assert off_plane.abs().max() < 1e-6
    # Together, eight cameras see the ball from all sides.
    assert seen.position.mean(dim=0).norm() < 0.2


def test_a_camera_sees_the_cap_that_faces_it():
    seen = seen_points(ball(1.0, 4), views(ONE), 10**6, seed=0)
    # From a distance d, the unit ball shows what has x > 1 / d.
    assert 0.24 < seen.position[:, 0].min() < 0.4
    assert seen.position[:, 0].max() == pytest.approx(1.0, abs=0.01)
    # Every pixel in the disc of tangent rays shows one point: radius f * tan(asin(1 / d)).
    assert len(seen.face) == pytest.approx(torch.pi * (1.6 * 64) ** 2 / 15, rel=0.03)


def test_the_choice_of_pixels_is_seeded():
    first, again, other = (
        seen_points(ball(1.0), views(AROUND), 100, seed).position for seen in [0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_points_come_in_the_coordinates_of_the_data_set():
    mesh = ball(1.0)
    there = Mesh(carried(mesh.vertices, TO_DATASET), mesh.faces)
    here, seen = (
        seen_points(one, views(AROUND, similarity), 500, 0) for one, similarity in ((mesh, None), (there, TO_DATASET))
    )
    torch.testing.assert_close(seen.position, carried(here.position, TO_DATASET), atol=1e-2, rtol=0)


def test_a_mesh_that_no_camera_sees_is_told():
    behind = ball(0.1)
    behind.vertices[:, 0] += 10
    with pytest.raises(ConfigError, match="none of 1 cameras sees the mesh"):
        seen_points(behind, views(ONE), 100, 0)


def even_points(n: int = 4000) -> torch.Tensor:
    return spiral(n, seed=0).double()


def test_of_a_cloud_the_cap_that_faces_a_camera_is_seen():
    points = even_points()
    width = (4 * torch.pi / len(points)) ** 0.5
    seen = unhidden(points, points, cameras(ONE), width)
    expected = points[:, 0] > 0.25
    # Near the outline it depends.
    is_clear = (points[:, 0] - 0.25).abs() > 0.15
    assert torch.equal(seen[is_clear], expected[is_clear])


def test_the_far_side_of_a_plate_is_hidden():
    axis = torch.linspace(-0.5, 0.5, 51).double()
    plate = torch.cartesian_prod(torch.zeros(1).double(), axis, axis)
    width = 0.02
    for thickness, is_hidden in ((3 * width, True), (0.5 * width, False)):
        points = torch.cat([plate, plate - torch.tensor([thickness, 0, 0])])
        normals = torch.tensor([1.0, 0, 0]).double().expand(len(points), 3)
        # Seen at 45 degrees, too, where points in front are not the ones above.
        for eye in (ONE, torch.tensor([[2.8, 2.8, 0]])):
            seen = unhidden(points, normals, cameras(eye), width)
            assert seen[: len(plate)].all()
            inner = (points.abs() < 0.4).all(dim=-1)[len(plate) :]
            assert bool(seen[len(plate) :][inner].any()) != is_hidden


def test_of_a_truth_only_what_is_seen_stays(monkeypatch):
    monkeypatch.setattr(surfaces, "N_SURFACE_POINTS", 2000)
    inner, outer = 0.5 * even_points(), even_points()
    truth = cloud_surface(torch.cat([inner, outer]).float())
    seen = seen_surface(truth, views(AROUND), 100, 0)
    radius = seen.points.norm(dim=-1)
    assert radius.min() > 0.99 and len(radius) > 0.9 * len(outer)
    # What distances are to is not changed.
    assert seen.distance is truth.distance and seen.diameter == truth.diameter

    of_mesh = seen_surface(mesh_surface(together(ball(0.5), ball(1.0))), views(AROUND), 1000, 0)
    assert of_mesh.points.norm(dim=-1).min() > 0.9 and len(of_mesh.points) == 1000
    assert (of_mesh.normals * of_mesh.points).sum(-1).min() > 0.9


def test_a_truth_that_no_camera_sees_is_told():
    with pytest.raises(ConfigError, match="none of 1 cameras sees the truth"):
        seen_surface(cloud_surface(even_points() + torch.tensor([10.0, 0, 0])), views(ONE), 100, 0)
