"""Laws of where rays are asked first, and then."""

import pytest
import torch

from models.fields.point_embedding import cone_gaussians
from models.rendering.ray_samplers import Adaptive, NearFar, stratified
from models.rendering.refinement import refine, sample_distribution
from tests.models.small import rays_of
from utils.types import RayPoints, Rays


def test_every_camera_has_its_own_range():
    rays = Rays.cat([rays_of(1), rays_of(1, seed=1)])
    rays.origins = torch.tensor([[0.0, 0.0, 3.0], [5.0, 0.0, 0.0]])
    points = Adaptive(Adaptive.Config(n_pts_per_ray_evaluation=3), radius=1.0).eval()(rays)
    torch.testing.assert_close(points.t, torch.tensor([[2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]))


def test_a_camera_inside_the_ball_begins_just_before_itself():
    rays = rays_of(2)
    rays.origins = torch.zeros(2, 3)
    points = Adaptive(Adaptive.Config(n_pts_per_ray_evaluation=3, scene_extent=2.0), radius=1.0).eval()(rays)
    torch.testing.assert_close(points.t, torch.tensor([[1e-3, 2.001, 4.001]]).expand(2, 3))


def test_stratified_points_stay_between_the_midpoints_to_their_neighbours():
    torch.manual_seed(0)
    t = torch.tensor([[1.0, 2.0, 4.0]]).expand(1000, 3)
    drawn = stratified(t)
    for column, (low, high) in enumerate([(1.0, 1.5), (1.5, 3.0), (3.0, 4.0)]):
        assert drawn[:, column].min() >= low and drawn[:, column].max() <= high
        assert drawn[:, column].mean().item() == pytest.approx((low + high) / 2, abs=0.05)


def test_points_are_drawn_anew_in_training_only():
    sampler, rays = NearFar(NearFar.Config(), 1.0), rays_of(4)
    assert not torch.equal(sampler(rays).t, sampler(rays).t)
    sampler.eval()
    assert torch.equal(sampler(rays).t, sampler(rays).t)


def test_the_next_pass_looks_where_the_last_one_saw_something():
    points = RayPoints(torch.linspace(0, 9, 10)[None])
    weights = torch.zeros(1, 10)
    weights[0, 4] = 1
    torch.manual_seed(0)
    for is_random in (False, True):
        new = refine(points, weights, 32, is_random, keeps_points=False).t
        # Of the 32 places the two ends of an even distribution may be elsewhere.
        assert ((new >= 3.5) & (new <= 4.5)).sum() >= 30
    kept = refine(points, weights, 32, is_random=True).t
    assert kept.shape == (1, 42) and (kept.diff() >= 0).all() and torch.isin(points.t, kept).all()


def test_the_inverse_of_a_distribution_by_hand():
    # Bins [0, 1], [1, 3] with probabilities 1/4 and 3/4.
    places = sample_distribution(torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[1.0, 3.0]]), 5, False, 0.0)
    torch.testing.assert_close(places, torch.tensor([[0.0, 1.0, 1 + 2 / 3, 1 + 4 / 3, 3.0]]))
    # What density_relu=false may make counts as empty.
    places = sample_distribution(torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[-1.0, 3.0]]), 3, False, 0.0)
    torch.testing.assert_close(places[:, 1:], torch.tensor([[2.0, 3.0]]))


def test_a_cone_of_no_length_is_a_point():
    rays = rays_of(3)
    mean, variance = cone_gaussians(rays, RayPoints(torch.zeros(3, 1), torch.zeros(3, 2)))
    assert torch.equal(mean[:, 0], rays.origins) and (variance == 0).all()
