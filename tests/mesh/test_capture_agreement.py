"""Laws of the agreement of a mesh with masks and sparse points."""

from dataclasses import replace

import pytest
import torch

from datasets.points import SparsePoints
from systems.capture_agreement import capture_agreement
from tests.mesh.ball import RADIUS, ball_mesh, cameras, photographs


def test_the_silhouette_of_the_right_mesh_is_the_mask():
    scores = capture_agreement(ball_mesh(), photographs(cameras(3, lens=torch.tensor([-0.1, 0.02]))))
    assert scores.keys() == {"silhouette_iou"} and scores["silhouette_iou"] > 0.995


def test_the_silhouette_of_a_smaller_mesh_is_a_share_of_the_mask():
    ball, views = ball_mesh(), photographs(cameras(2))
    half = replace(ball, vertices=ball.vertices / 2)
    # From 4 radii away, a ball's outline is that of a disc a little larger than the ball.
    seen = {size: (size * RADIUS) ** 2 / (4 - (size * RADIUS) ** 2) for size in (0.5, 1.0)}
    assert capture_agreement(half, views)["silhouette_iou"] == pytest.approx(seen[0.5] / seen[1.0], rel=0.03)


def test_a_mesh_out_of_sight_agrees_with_nothing():
    ball = ball_mesh()
    away = replace(ball, vertices=ball.vertices + torch.tensor([0.0, 0.0, 50.0]))
    assert capture_agreement(away, photographs(cameras(1)))["silhouette_iou"] == 0


def test_points_outside_of_the_unit_ball_do_not_count():
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    radii = torch.cat([torch.full((150,), RADIUS + 0.02), torch.full((50,), 1.2)])
    points = SparsePoints.unobserved(radii[:, None] * directions)
    views = replace(photographs(cameras(1)), alpha=None, points=points)
    scores = capture_agreement(ball_mesh(5), views)
    assert scores["n_points"] == 150
    assert scores["points_median_percent"] == pytest.approx(2, rel=0.03)
    assert scores["points_90_percent"] == pytest.approx(2, rel=0.05)
    views = replace(views, points=SparsePoints.unobserved(3 * directions))
    assert capture_agreement(ball_mesh(), views) == {}
