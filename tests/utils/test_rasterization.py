"""Laws of triangles on pixels."""

import pytest
import torch

from utils import rasterization
from utils.rasterization import Fragments, fragments, nearest

WIDTH, HEIGHT = 23, 17


def triangles(n: int = 40, seed: int = 0) -> torch.Tensor:
    """Random ones, some of which reach out of the image."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 3, 2, generator=generator) * 1.6 - 0.3) * torch.tensor([WIDTH, HEIGHT])


def covered(corner: torch.Tensor, width: int = WIDTH, height: int = HEIGHT) -> Fragments:
    return Fragments.cat(list(fragments(corner, width, height)))


def centres(pixel: torch.Tensor, width: int = WIDTH) -> torch.Tensor:
    return torch.stack([pixel % width + 0.5, pixel // width + 0.5], dim=-1)


def is_inside(corner: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """[F, P] by half planes, in double precision."""
    a, b, c = corner.double().unbind(1)

    def side(p, q):
        to, edge = place.double()[None] - p[:, None], (q - p)[:, None]
        return edge[..., 0] * to[..., 1] - edge[..., 1] * to[..., 0]

    sides = torch.stack([side(a, b), side(b, c), side(c, a)])
    return (sides > 0).all(0) | (sides < 0).all(0)


def test_a_triangle_covers_the_pixels_whose_centres_lie_in_it():
    corner = triangles()
    found = torch.zeros(len(corner), WIDTH * HEIGHT, dtype=torch.bool)
    part = covered(corner)
    found[part.face, part.pixel] = True
    assert torch.equal(found, is_inside(corner, centres(torch.arange(WIDTH * HEIGHT))))
    assert len(part) == found.sum() > 1000


def test_weights_give_back_the_centre():
    corner = triangles()
    part = covered(corner)
    place = part.interpolate(corner.flatten(0, 1), torch.arange(3 * len(corner)).view(-1, 3))
    torch.testing.assert_close(place, centres(part.pixel), atol=1e-3, rtol=0)
    torch.testing.assert_close(part.weight.sum(-1), torch.ones(len(part)))


def test_no_pixel_falls_between_neighbours():
    # A fan around a point that is no centre, and edges through hundreds of centres, in both directions.
    ring = torch.tensor([[0.0, 0], [100, 0], [100, 100], [0, 100]])
    for middle in ([37.21, 64.83], [50.0, 50.0], [0.5, 0.5]):
        fan = torch.stack([torch.stack([torch.tensor(middle), ring[i], ring[(i + 1) % 4]]) for i in range(4)])
        for corner in (fan, fan.flip(1)):
            assert len(covered(corner, 100, 100).pixel.unique()) == 100 * 100


def test_the_number_of_pairs_at_once_changes_nothing(monkeypatch):
    corner = triangles()
    whole = covered(corner)
    monkeypatch.setattr(rasterization, "PAIRS", 50)
    monkeypatch.setattr(rasterization, "BAND", 2 * WIDTH)
    parts = list(fragments(corner, WIDTH, HEIGHT))
    assert len(parts) > 20 and max(len(part) for part in parts) <= 2 * WIDTH
    pieces = Fragments.cat(parts)
    order, again = (torch.argsort(one.pixel * len(corner) + one.face) for one in (whole, pieces))
    assert torch.equal(whole.pixel[order], pieces.pixel[again]) and torch.equal(whole.face[order], pieces.face[again])
    assert torch.equal(whole.weight[order], pieces.weight[again])


@pytest.mark.parametrize(
    "corner",
    [
        torch.zeros(0, 3, 2),
        torch.tensor([[[0.5, 0.5], [3.5, 3.5], [7.5, 7.5]]]),  # without area, through centres
        torch.tensor([[[-9.0, 1], [-5, 1], [-5, 9]]]),
        torch.tensor([[[2.6, 2.6], [3.4, 2.6], [3.4, 3.4]]]),  # between centres
    ],
    ids=["none", "flat", "outside", "between"],
)
def test_some_triangles_cover_nothing(corner):
    assert list(fragments(corner, 10, 10)) == [] or len(covered(corner, 10, 10)) == 0
    assert len(nearest(corner, torch.ones(len(corner), 3), 10, 10)) == 0


def test_a_triangle_may_be_far_larger_than_the_image():
    corner = torch.tensor([[[-1e9, -1e9], [1e9, -1e9], [0.0, 1e9]]])
    assert len(covered(corner, 8, 8)) == 64


def test_a_camera_sees_what_its_rays_meet_first():
    generator = torch.Generator().manual_seed(1)
    space = torch.rand(60, 3, 3, generator=generator, dtype=torch.float64) * 2 - 1 + torch.tensor([0, 0, 3.0])
    focal = 15.0
    place = focal * space[..., :2] / space[..., 2:] + torch.tensor([WIDTH, HEIGHT]) / 2
    seen = nearest(place, space[..., 2], WIDTH, HEIGHT)

    # Every ray with every plane, by Cramer's rule.
    pixel = torch.arange(WIDTH * HEIGHT)
    ray = torch.cat([(centres(pixel) - torch.tensor([WIDTH, HEIGHT]) / 2) / focal, torch.ones(len(pixel), 1)], dim=1)
    solved = torch.linalg.inv(space.transpose(1, 2)) @ ray.double().T  # [60, 3, P], weights times inverse depth
    depth = torch.where((solved >= 0).all(1), 1 / solved.sum(1), torch.inf)
    first, face = depth.min(dim=0)
    assert torch.equal(seen.pixel, first.isfinite().nonzero()[:, 0])
    assert torch.equal(seen.face, face[seen.pixel])
    points = seen.interpolate(space.flatten(0, 1), torch.arange(180).view(60, 3))
    torch.testing.assert_close(points, ray[seen.pixel] * first[seen.pixel, None])
    assert len(seen.face.unique()) > 10


def test_what_lies_behind_comes_through_in_no_order(monkeypatch):
    corner = triangles()
    depth = torch.linspace(1, 2, len(corner))[:, None].repeat(1, 3)
    front = nearest(corner, depth, WIDTH, HEIGHT)
    monkeypatch.setattr(rasterization, "PAIRS", 50)
    back = nearest(corner.flip(0), depth.flip(0), WIDTH, HEIGHT)
    assert torch.equal(front.pixel, back.pixel) and torch.equal(front.face, len(corner) - 1 - back.face)
