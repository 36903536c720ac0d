"""Cameras, rays and the points on them against recorded numbers of the published code."""

import pytest
import torch

from models.rendering.ray_samplers import Adaptive, NearFar
from models.rendering.refinement import blurred, refine, sample_distribution
from tests.parity.reference import assert_agrees, cameras_of, grid, load, rays_of
from utils.types import RayPoints


@pytest.mark.parametrize(("width", "height"), [(8, 6), (6, 8), (7, 7)])
def test_rays_of_all_pixels(width: int, height: int) -> None:
    data = load("cameras_rays")
    rays = grid(cameras_of(data, width, height))
    assert_agrees(rays.origins, data[f"grid{width}x{height}_unit_origins"])
    assert_agrees(rays.directions, data[f"grid{width}x{height}_unit_directions"])


def test_projected_points() -> None:
    data = load("cameras_rays")
    # An image of 2 x 2 pixels whose pixel is an NDC unit.
    cameras = cameras_of(data, 2, 2)
    n_cameras, n_points = data["points_world"].shape[:2]
    view = torch.arange(n_cameras).repeat_interleave(n_points)
    place, depth = cameras.project(view, data["points_world"].view(-1, 3))
    ndc = data["ndc"].view(-1, 3)
    is_ahead = depth > 0
    assert is_ahead.any()
    assert_agrees(depth, data["view"][..., 2])
    assert_agrees((1 - place)[is_ahead], ndc[is_ahead, :2])
    assert_agrees(cameras.pose[:, :, 3], data["center"])


def test_adaptive_points() -> None:
    data = load("ray_samplers")
    center, extent = data["adaptive_center"].tolist(), data["adaptive_extent"].item()
    config = Adaptive.Config(n_pts_per_ray_evaluation=4, scene_extent=extent, scene_center=center)
    rays = grid(cameras_of(data, 6, 5))
    assert_agrees(rays.directions, data["adaptive_directions"])
    ours = Adaptive(config, radius=1.0).eval()(rays).t.view(2, -1, 4)
    theirs = data["adaptive_lengths"].view(2, -1, 4)
    assert_agrees(ours[0], theirs[0])
    # [D5]: theirs takes the range of the first camera for the second one too, which stands elsewhere.
    distance = (data["cam_T"][1] + data["adaptive_center"] @ data["cam_R"][1]).norm()
    expected = torch.linspace(0, 1, 4) * 2 * extent + distance - extent
    assert_agrees(ours[1], expected.expand(30, 4))
    assert (ours[1] - theirs[1]).abs().max() > 1e-3


def test_points_on_cones() -> None:
    data = load("ray_samplers")
    rays = grid(cameras_of(data, 6, 5))
    near, far = data["cone_bins"][0, 0, 0, [0, -1]].tolist()
    config = NearFar.Config(n_pts_per_ray_evaluation=4, cast_ray_bundle_as_cone=True, min_depth=near, max_depth=far)
    points = NearFar(config, radius=1.0).eval()(rays)
    assert_agrees(points.edges, data["cone_bins"])
    assert_agrees(points.t, data["cone_lengths"])
    assert rays.radius is not None
    assert_agrees(rays.radius, data["cone_pixel_radii_2d"])


def test_no_points_are_a_valid_number_of_points() -> None:
    data = load("ray_samplers")
    points = NearFar(NearFar.Config(n_pts_per_ray_evaluation=0), 1.0).eval()(grid(cameras_of(data, 6, 5)))
    assert points.t.shape == (60, 0) and data["zero_points_lengths_shape"][-1] == 0


def test_blurred_weights() -> None:
    data = load("ray_point_refiner")
    assert_agrees(blurred(data["weights"].view(6, 8)), data["blurred"])


@pytest.mark.parametrize("keeps_points", [False, True])
@pytest.mark.parametrize("is_blurred", [False, True])
def test_refined_points(keeps_points: bool, is_blurred: bool) -> None:
    data = load("ray_point_refiner")
    _, points = rays_of(data)
    weights = data["weights"].view(6, 8)
    ours = refine(points, weights, 6, False, keeps_points, is_blurred).t
    theirs = data[f"lengths_add{keeps_points:d}_blur{is_blurred:d}"].view(6, -1)
    is_seen = weights.sum(-1) > 0
    assert is_seen.sum() == 5
    assert_agrees(ours[is_seen], theirs[is_seen])
    _assert_empty_ray_is_sampled_evenly(ours[~is_seen], theirs[~is_seen])


@pytest.mark.parametrize("keeps_points", [False, True])
def test_refined_edges(keeps_points: bool) -> None:
    data = load("ray_point_refiner")
    edges = data["bins_in"].view(6, 9)
    weights = data["weights"].view(6, 8)
    ours = refine(RayPoints(0.5 * (edges[:, 1:] + edges[:, :-1]), edges), weights, 6, False, keeps_points)
    is_seen = weights.sum(-1) > 0
    assert ours.edges is not None
    assert_agrees(ours.edges[is_seen], data[f"bins_add{keeps_points:d}"].view(6, -1)[is_seen])
    assert_agrees(ours.t[is_seen], data[f"bins_lengths_add{keeps_points:d}"].view(6, -1)[is_seen])


def test_sampled_distribution() -> None:
    data = load("ray_point_refiner")
    # [D6]: eps is added to every bin, as in their Python twin; native adds it once to the sum.
    ours = sample_distribution(data["pdf_edges"], data["pdf_weights"], 9, False, 1e-5)
    assert_agrees(ours, data["pdf_python"])
    is_seen = data["pdf_weights"].sum(-1) > 0
    assert_agrees(ours[is_seen], data["pdf_native"][is_seen])


def _assert_empty_ray_is_sampled_evenly(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """[D6]: theirs sends all points of an empty ray, but the first, to its far end."""
    assert (theirs.diff(dim=1) == 0).sum() == 4
    assert (ours.diff(dim=1) > 0).all()
