import pytest
import torch
import trimesh

from utils.triangles import TriangleTree, draw_points, face_normals
from utils.types import Mesh


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
    every = (torch.from_numpy(every).view(300, 400, 3) - points[:, None]).norm(dim=-1)  # [points, triangles]
    distance, face = TriangleTree(mesh).nearest(points)
    torch.testing.assert_close(distance, every.amin(dim=1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(every[torch.arange(300), face], distance, rtol=1e-9, atol=1e-12)


def test_a_large_face_is_found_among_many_small_ones():
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.1)
    small = torch.tensor(ball.vertices + [0.4, 0.0, 1.0])
    large = torch.tensor([[-5.0, -5, 0], [5, -5, 0], [5, 5, 0], [-5, 5, 0]]).double()
    faces = torch.cat([torch.tensor(ball.faces).long(), torch.tensor([[0, 1, 2], [0, 2, 3]]) + len(small)])
    distance, face = TriangleTree(Mesh(torch.cat([small, large]), faces)).nearest(
        torch.tensor([[0.4, 0.0, 0.3], [4.0, -4.0, -0.5]])
    )
    assert distance.tolist() == pytest.approx([0.3, 0.5])
    assert (face >= len(ball.faces)).all()


def test_samples_are_even_by_area_and_repeatable():
    mesh = Mesh(
        torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [10.0, 0, 0], [11, 0, 0], [10, 1, 0]]),
        torch.tensor([[0, 1, 2], [3, 4, 5]]),
    )
    points, face = draw_points(mesh, 40_000, seed=4)
    assert torch.equal(face == 0, points[:, 0] < 5)
    assert (face == 0).double().mean() == pytest.approx(0.75, abs=0.01)
    # Evenly spread over a triangle, the mean is the centroid.
    expected = torch.tensor([1.0, 1 / 3, 0]).double()
    torch.testing.assert_close(points[face == 0].mean(dim=0), expected, atol=0.02, rtol=0)
    assert torch.equal(points, draw_points(mesh, 40_000, seed=4)[0])


def test_a_mesh_without_area_has_no_points_to_draw():
    flat = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="the 1 triangles of the mesh have no area"):
        draw_points(flat, 10, seed=0)


def test_normals_of_faces_have_unit_length_however_small_the_face():
    tiny = Mesh(1e-7 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2], [0, 0, 1]]))
    assert face_normals(tiny).tolist() == [[0, 0, 1], [0, 0, 0]]
