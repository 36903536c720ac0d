"""Laws of pictures of meshes."""

from dataclasses import replace

import pytest
import torch

from datasets.cameras import Cameras
from models.texture_atlas import bake, unwrap
from systems.mesh_rendering import N_SCORED, render_mesh, texture_scores, visible
from tests.mesh.ball import DISTANCE, RADIUS, ball_color, ball_mesh, cameras, photographs
from utils.types import Mesh

WHITE = torch.ones(3)
LENSES = {
    "pinhole": (None, False),
    "barrel": (torch.tensor([-0.12, 0.03, 0.004, -0.003]), False),
    "fisheye": (torch.tensor([0.05, -0.01]), True),
}


@pytest.fixture(scope="module")
def ball() -> Mesh:
    return bake(unwrap(ball_mesh(), 256), lambda points, normals: ball_color(points), 256)


def quad(pixels: torch.Tensor, depth: float = 2.0) -> tuple[Mesh, Cameras]:
    """A texture head-on before a camera, a texel a pixel, a pixel of backdrop around it."""
    height, width = pixels.shape[:2]
    x, y = torch.tensor([[0.0, width, width, 0], [0, 0, height, height]]) + 1
    focal, size = 50.0, torch.tensor([[width + 2, height + 2]])
    center = size / 2 + torch.tensor([0.3, -0.2])
    vertices = torch.stack([(x - center[0, 0]) / focal, (center[0, 1] - y) / focal, torch.full((4,), -1.0)], dim=-1)
    uv = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    mesh = Mesh(depth * vertices, torch.tensor([[0, 3, 1], [1, 3, 2]]), uv=uv, texture=pixels)
    return mesh, Cameras(torch.eye(4)[None, :3], torch.full((1, 2), focal), center, size)


@pytest.mark.parametrize("supersampling", [1, 3])
def test_a_texture_head_on_looks_like_itself(supersampling):
    pixels = torch.randint(0, 256, (5, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    color, coverage = render_mesh(*quad(pixels), 0, supersampling)
    assert color.shape == (7, 10, 3)
    assert coverage[1:-1, 1:-1].min() == 1 and coverage.sum() == 40
    if supersampling == 1:
        torch.testing.assert_close(color[1:-1, 1:-1], pixels / 255, atol=1e-4, rtol=0)


def test_coverage_is_the_share_of_a_pixel():
    mesh, camera = quad(torch.full((1, 1, 3), 255, dtype=torch.uint8))
    half = replace(camera, center=camera.center + torch.tensor([0.5, 0.0]))
    color, coverage = render_mesh(mesh, half, 0, supersampling=4)
    torch.testing.assert_close(coverage[1], torch.tensor([0.0, 0.5, 0.5]))
    torch.testing.assert_close(color, coverage[..., None].expand(-1, -1, 3))


@pytest.mark.parametrize("name", LENSES)
def test_a_mesh_is_seen_where_rays_meet_it_through_any_lens(ball, name):
    views = photographs(cameras(3, lens=LENSES[name][0], is_fisheye=LENSES[name][1]))
    scores = texture_scores(ball, views, WHITE)
    assert scores["n_views"] == 3
    # What is missing: photographs have one ray a pixel, pictures of the mesh four.
    assert scores["psnr_on_mesh"] > 45 and scores["psnr"] > 30 and scores["ssim"] > 0.98


def test_the_nearer_side_is_seen(ball):
    camera = cameras(1)
    seen = visible(ball.vertices, ball.faces, camera, 0)
    distance = (seen.interpolate(ball.vertices, ball.faces) - camera.pose[0, :, 3]).norm(dim=-1)
    assert DISTANCE - RADIUS - 1e-3 < distance.min() and distance.max() < (DISTANCE**2 - RADIUS**2) ** 0.5 + 1e-2


def test_a_camera_inside_sees_what_is_before_it(ball):
    camera = cameras(1)
    inside = replace(camera, pose=camera.pose * torch.tensor([1.0, 1, 1, 0]))
    color, coverage = render_mesh(ball, inside, 0)
    assert coverage.min() == 1
    ahead = -camera.pose[0, :, 2] * RADIUS
    torch.testing.assert_close(color[48, 48], ball_color(ahead), atol=0.02, rtol=0)


def test_nothing_in_sight_is_an_empty_picture_and_no_score(ball):
    camera = cameras(1)
    away = replace(camera, pose=camera.pose * torch.tensor([-1.0, 1, -1, 1]))
    color, coverage = render_mesh(ball, away, 0)
    assert color.sum() == 0 and coverage.sum() == 0
    assert "psnr_on_mesh" not in texture_scores(ball, photographs(away), WHITE)


def test_without_masks_only_what_the_mesh_covers_is_scored(ball):
    views = photographs(cameras(2))
    for bare in (replace(views, alpha=None), replace(views, apply_mask=False)):
        scores = texture_scores(ball, bare, WHITE)
        assert scores.keys() == {"psnr_on_mesh", "n_views"}
        # The backdrop has no part in it.
        assert scores == texture_scores(ball, bare, 0 * WHITE)


def test_a_wrong_texture_scores_less_and_many_views_are_thinned_out(ball):
    views = photographs(cameras(N_SCORED + 9, size=24))
    good = texture_scores(ball, views, WHITE)
    bad = texture_scores(replace(ball, texture=255 - ball.texture), views, WHITE)
    assert good["n_views"] == N_SCORED and bad["psnr"] < good["psnr"] - 10
