"""Laws of which faces cameras see."""

import torch

from datasets.cameras import Cameras
from models.mesh import extract
from systems.unseen import seen_faces
from utils.types import Mesh

CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3])


def shells(points):
    """A ball of radius 0.8 that is hollow up to 0.5 and holds another of 0.2."""
    distance = points.norm(dim=-1)
    return torch.minimum((distance - 0.65).abs() - 0.15, distance - 0.2)


def cameras(directions, size: int = 100, distance: float = 3.0) -> Cameras:
    """Cameras that look at the origin from some directions."""
    back = torch.nn.functional.normalize(torch.tensor(directions, dtype=torch.float32), dim=-1)
    right = torch.linalg.cross(torch.tensor([[0.1, 0.2, 1.0]]).expand_as(back), back)
    right = torch.nn.functional.normalize(right, dim=-1)
    pose = torch.stack([right, torch.linalg.cross(back, right), back, distance * back], dim=-1)
    n = len(back)
    return Cameras(pose, torch.full((n, 2), 1.5 * size), torch.full((n, 2), size / 2), torch.full((n, 2), size))


AROUND = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]


def centres(mesh: Mesh):
    return mesh.vertices[mesh.faces].mean(dim=1)


def test_what_is_inside_is_never_seen_and_all_of_the_outside_is():
    mesh = extract(shells, CUBE, 48)
    told = []
    for size in (400, 30):  # several pixels a face; several faces a pixel
        is_seen = seen_faces(mesh, cameras(AROUND, size), told.append)
        assert torch.equal(is_seen, centres(mesh).norm(dim=-1) > 0.7)
    assert told[-1] == 1.0


def test_one_camera_sees_one_side():
    mesh = extract(shells, CUBE, 48)
    is_seen = seen_faces(mesh, cameras([[0, 0, 1]]))
    # The horizon of a ball of radius 0.8 seen from 3 lies at 0.8² / 3; cosines are above 0.3 from 0.43 on.
    outer = centres(mesh).norm(dim=-1) > 0.7
    height = centres(mesh)[:, 2]
    assert is_seen[outer & (height > 0.45)].all()
    assert not is_seen[~outer | (height < 0.16)].any()


def test_nothing_is_seen_from_within_other_views_or_behind():
    mesh = extract(shells, CUBE, 32)
    away = cameras([[0, 0, 1]])
    away.pose[:, :, [0, 2]] *= -1  # turned around
    assert not seen_faces(mesh, away).any()


def test_what_stands_in_front_hides():
    def level(points):
        ball = (points - torch.tensor([0.0, 0, -0.5])).norm(dim=-1) - 0.3
        screen = (points - torch.tensor([0.0, 0, 0.5])).abs().sub(torch.tensor([0.6, 0.6, 0.1])).amax(dim=-1)
        return torch.minimum(ball, screen)

    mesh = extract(level, CUBE, 48)
    is_ball = centres(mesh)[:, 2] < 0
    is_seen = seen_faces(mesh, cameras([[0, 0, 1]]))
    assert not is_seen[is_ball].any() and is_seen[~is_ball].any()
    assert seen_faces(mesh, cameras([[0, 0, 1], [1, 0, 0]]))[is_ball].any()
