"""Laws of what is taken off a mesh."""

import math

import pytest
import torch
import trimesh

from models.cleaning import keep_components, select, smooth
from models.mesh import components, face_areas, report
from utils.types import Mesh


def ball(radius: float, x: float = 0.0) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(torch.tensor(body.vertices + [x, 0, 0]).float(), torch.tensor(body.faces).long())


def together(*parts: Mesh) -> Mesh:
    first = torch.tensor([0] + [len(part.vertices) for part in parts]).cumsum(0)
    faces = [part.faces + n for part, n in zip(parts, first, strict=False)]
    vertices = torch.cat([part.vertices for part in parts])
    return Mesh(vertices, torch.cat(faces), normals=torch.nn.functional.normalize(vertices, dim=-1))


def volume(mesh: Mesh) -> float:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).volume


# Their areas are in the proportion of 100 to 25 to 4 to 1.
BALLS = together(ball(0.1, -0.8), ball(1.0, 2.0), ball(0.2, 4.0), ball(0.5))


def test_areas_are_those_of_the_surface():
    assert float(face_areas(ball(1.0)).sum()) == pytest.approx(4 * math.pi, rel=0.01)


def test_components_are_told_apart():
    count, part = components(BALLS)
    assert count == 4
    assert [len(rows.unique()) for rows in part.view(4, -1)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("n", "least_share", "kept"),
    [
        (0, 0.0, 4),
        (1, 0.0, 1),
        (2, 0.0, 2),
        (9, 0.0, 4),
        (0, 0.02, 3),
        (0, 0.1, 2),
        (0, 0.9, 1),
        (1, 0.02, 1),
        (3, 0.1, 2),
    ],
)
def test_small_components_go_and_the_largest_stays(n, least_share, kept):
    mesh, n_dropped = keep_components(BALLS, n, least_share)
    assert n_dropped == 4 - kept and report(mesh)["components"] == kept
    assert report(mesh)["is_watertight"]
    radii = sorted((1.0, 0.5, 0.2, 0.1)[:kept])
    assert volume(mesh) == pytest.approx(sum(4 / 3 * math.pi * radius**3 for radius in radii), rel=0.02)
    assert mesh.normals.shape == mesh.vertices.shape
    torch.testing.assert_close(mesh.normals, torch.nn.functional.normalize(mesh.vertices, dim=-1))


def inward(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces.flip(1))


def test_cavities_are_filled_whatever_their_size():
    # A hollow ball beside a solid one; areas are in the proportion of 25 to 16 to 1.
    mesh = together(ball(0.5), inward(ball(0.4)), ball(0.1, 3.0))
    filled, n_dropped = keep_components(mesh, least_share=0.03, fills_cavities=True)
    assert n_dropped == 1 and report(filled)["components"] == 2
    assert volume(filled) == pytest.approx(volume(ball(0.5)) + volume(ball(0.1)), rel=1e-5)
    assert keep_components(mesh)[0] is mesh


def test_a_room_seen_from_within_is_no_cavity():
    mesh = together(inward(ball(2.0)), ball(0.5))
    assert keep_components(mesh, fills_cavities=True) == (mesh, 0)


def test_what_is_open_is_no_cavity():
    half = inward(ball(0.5))
    half = select(half, half.vertices[half.faces][..., 2].amin(dim=1) >= 0)
    assert volume(half) < 0
    mesh = together(ball(1.0, 3.0), half)
    assert keep_components(mesh, fills_cavities=True) == (mesh, 0)


def test_nothing_is_copied_where_nothing_is_dropped():
    assert keep_components(BALLS)[0] is BALLS


def test_a_selection_leaves_no_vertex_without_a_face():
    mesh = ball(1.0)
    half = select(mesh, mesh.vertices[mesh.faces][..., 2].amin(dim=1) >= 0)
    assert half.vertices[:, 2].min() >= 0 and len(half.faces) < len(mesh.faces)
    assert torch.equal(half.faces.unique(), torch.arange(len(half.vertices)))


def test_smoothing_takes_off_the_noise_and_not_the_size():
    torch.manual_seed(0)
    sphere = ball(1.0)
    noisy = Mesh(sphere.vertices * (1 + 0.01 * torch.randn(len(sphere.vertices), 1)), sphere.faces)
    mesh = smooth(noisy, 10)
    assert (mesh.vertices.norm(dim=-1) - 1).std() < 0.5 * (noisy.vertices.norm(dim=-1) - 1).std()
    assert volume(mesh) == pytest.approx(volume(sphere), rel=0.01)
    assert torch.equal(mesh.faces, sphere.faces)
    assert (mesh.normals * mesh.vertices).sum(dim=-1).min() > 0.98
    assert smooth(noisy, 0) is noisy
