"""Laws of colours that come from photographs."""

from dataclasses import replace

import pytest
import torch

from systems import photograph_color
from systems.photograph_color import PhotographColor
from tests.mesh.ball import RADIUS, ball_color, ball_mesh, cameras, photographs
from utils.types import Mesh

MAGENTA = torch.tensor([1.0, 0.0, 1.0])


def magenta(points, normals):
    return MAGENTA.expand(len(points), 3)


def surface_points(n: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    normals = torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    return RADIUS * normals, normals


def is_fallback(color: torch.Tensor) -> torch.Tensor:
    return (color == MAGENTA).all(dim=-1)


@pytest.mark.parametrize("lens", [None, torch.tensor([-0.12, 0.03, 0.004, -0.003])], ids=["pinhole", "barrel"])
def test_a_surface_has_the_colours_of_its_photographs(lens):
    source = PhotographColor(ball_mesh(), photographs(cameras(24, lens=lens)), magenta)
    points, normals = surface_points()
    color = source(points, normals)
    assert source.n_points == source.n_seen == len(points)
    # Of 96 pixels the ball takes 77, so a pixel is 1/77 wide, in which the colour changes by 0.01.
    assert (color - ball_color(points)).abs().max() < 0.03
    assert (color - ball_color(points)).abs().mean() < 0.003


def test_depth_maps_of_any_size_do(monkeypatch):
    monkeypatch.setattr(photograph_color, "DEPTH_BYTES", 4 * 24 * 30**2)
    source = PhotographColor(ball_mesh(), photographs(cameras(24)), magenta)
    points, normals = surface_points()
    assert (source(points, normals) - ball_color(points)).abs().max() < 0.03
    assert source.n_seen > 0.99 * len(points)


def test_what_no_photograph_shows_has_the_fallback_colour():
    camera = cameras(1)
    source = PhotographColor(ball_mesh(), photographs(camera), magenta)
    points, normals = surface_points()
    color = source(points, normals)
    ray = camera.pose[0, :, 3] - points
    cosine = (ray * normals).sum(dim=-1) / ray.norm(dim=-1)
    assert is_fallback(color[cosine < photograph_color.MIN_COSINE]).all()
    assert not is_fallback(color[cosine > photograph_color.MIN_COSINE + 0.01]).any()
    assert source.n_seen == (~is_fallback(color)).sum() > 500


def test_what_stands_in_front_leaves_no_trace():
    # A wall between the camera and the lower half of the ball; the photograph shows it in red.
    camera = cameras(1)
    right, up, back, place = camera.pose[0].unbind(dim=-1)
    far, near = place - 1.0 * back, torch.tensor([[-1.0, -2], [1, -2], [1, 0], [-1, 0]])
    wall = far + near[:, :1] * right + near[:, 1:] * up
    ball = ball_mesh()
    both = Mesh(
        torch.cat([ball.vertices, wall]),
        torch.cat([ball.faces, torch.tensor([[0, 1, 2], [0, 2, 3]]) + len(ball.vertices)]),
    )
    views = photographs(camera)
    picture = views.picture(views.color, 0).clone()
    picture[int(camera.center[0, 1]) :] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    views = replace(views, color=picture.view(-1, 3))

    points, normals = surface_points()
    height = (points * up).sum(dim=-1)
    color = PhotographColor(both, views, magenta)(points, normals)
    is_red = (color[:, 0] > 0.99) & (color[:, 2] < 0.01)
    assert not is_red.any()
    assert is_fallback(color[height < -0.02]).all()
    assert (~is_fallback(color[height > 0.05])).sum() > 100
    # Were the wall not part of the mesh, the red would be taken for the ball's.
    naive = PhotographColor(ball, views, magenta)(points, normals)
    assert ((naive[:, 0] > 0.99) & (naive[:, 2] < 0.01)).sum() > 100


def test_a_photograph_that_disagrees_with_the_others_is_left_out():
    views = photographs(cameras(24))
    first, last = views.offsets[7:9].tolist()
    wrong = views.color.clone()
    wrong[first:last] = torch.tensor([0, 255, 0], dtype=torch.uint8)
    points, normals = surface_points()
    color = PhotographColor(ball_mesh(), replace(views, color=wrong), magenta)(points, normals)
    assert (color - ball_color(points)).abs().max() < 0.04


def test_pixels_beside_the_mask_are_not_used():
    # White beside a ball that is photographed smaller than it is meshed.
    points, normals = surface_points()
    views = photographs(cameras(24))
    large = replace(ball_mesh(), vertices=1.1 * ball_mesh().vertices)
    masked = PhotographColor(large, views, magenta)(1.1 * points, normals)
    bare = PhotographColor(large, replace(views, alpha=None), magenta)(1.1 * points, normals)
    is_white = [(color > 0.97).all(dim=-1).sum() for color in (masked, bare)]
    assert is_white[0] == 0


def test_the_nearer_of_two_photographs_counts():
    # Two cameras in one direction, one from twice as far; their photographs are black and white.
    camera = cameras(1)
    pose = camera.pose.clone()
    pose[..., 3] *= 2
    both = type(camera).cat([camera, replace(camera, pose=pose)])
    views = photographs(both)
    shade = torch.repeat_interleave(torch.tensor([0, 255]), views.offsets.diff())[:, None].expand(-1, 3)
    points, normals = surface_points()
    color = PhotographColor(ball_mesh(), replace(views, color=shade.to(torch.uint8)), magenta)(points, normals)
    cosine = (normals * -camera.pose[0, :, 2]).sum(dim=-1)
    assert (cosine < -0.5).sum() > 500 and color[cosine < -0.5].max() < 0.1
