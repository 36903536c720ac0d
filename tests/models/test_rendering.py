"""Laws of opacity, compositing and marching."""

import math

import pytest
import torch

from models.rendering.composite import composite
from models.rendering.marching import March, box_range, cone_angle, visible
from models.rendering.occupancy import Everywhere
from models.rendering.opacity import NeusOpacity, VolsdfOpacity, annealed_slope, density_alpha
from tests.models.small import rays_along_x, small_neus
from utils.types import Samples

LAWS = {"neus": NeusOpacity(NeusOpacity.Config()), "volsdf": VolsdfOpacity(VolsdfOpacity.Config())}


def test_the_opacity_of_two_intervals_is_that_of_their_union():
    density, width = torch.tensor([2.0]), torch.tensor([0.3])
    halves = 1 - (1 - density_alpha(density, width / 2)) ** 2
    assert torch.allclose(halves, density_alpha(density, width))


@pytest.mark.parametrize(
    ("progress", "cosine", "slope"), [(1.0, -0.7, -0.7), (1.0, 0.7, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -0.5)]
)
def test_the_annealed_slope_lets_leaving_rays_in_early_on(progress, cosine, slope):
    assert annealed_slope(torch.tensor([cosine]), progress).item() == pytest.approx(slope)


def test_a_sharp_surface_is_opaque_in_front_and_clear_behind_the_ray():
    sharpness = torch.tensor(1e4)
    arguments = torch.tensor([0.0, 0.5]), torch.tensor([-1.0, -1.0]), torch.tensor([0.02, 0.02]), sharpness
    for law in LAWS.values():
        alpha = law(*arguments)
        assert alpha[0] > 0.99
        assert alpha[1] < 1e-3


def test_the_density_of_volsdf_is_a_laplace_distribution():
    # beta 0.1: half of 1 / beta on the surface, e^-1 / 2 of it one beta outside, the rest one beta inside.
    sdf, width = torch.tensor([0.0, 0.1, -0.1]), torch.full((3,), 0.01)
    tail = 0.5 * math.exp(-1)
    expected = density_alpha(torch.tensor([5.0, 10 * tail, 10 * (1 - tail)]), width)
    assert torch.allclose(LAWS["volsdf"](sdf, -torch.ones(3), width, torch.tensor(10.0)), expected)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_both_laws_let_as_much_light_in_at_one_sharpness(law):
    # From far outside to 5 / s inside, in short steps: what a shell's band is made for.
    edges = torch.linspace(0.2, -0.05, 501, dtype=torch.float64)
    sdf, width = 0.5 * (edges[1:] + edges[:-1]), -edges.diff()
    alpha = law(sdf, -torch.ones_like(sdf), width, torch.tensor(100.0, dtype=torch.float64), "reference")
    assert (1 - alpha).prod().item() == pytest.approx(math.exp(-5), rel=0.05)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_distance_and_sharpness_learn_from_opacities(law):
    torch.manual_seed(0)
    sdf = (0.1 * torch.randn(20, dtype=torch.float64)).requires_grad_()
    sharpness = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    slope, width = -torch.rand(20, dtype=torch.float64), 0.02 + 0.02 * torch.rand(20, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: law(x[0], slope, width, x[1], "reference"), (sdf, sharpness))


def test_weights_of_a_ray_sum_to_its_opacity_and_depth_is_their_mean_distance():
    samples = Samples(
        torch.tensor([1.0, 2.0, 5.0]),
        torch.tensor([2.0, 3.0, 6.0]),
        torch.tensor([0, 0, 2]),
        torch.tensor([0, 2, 2, 3]),
    )
    color = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    seen = composite(samples, torch.tensor([0.5, 0.5, 0.25]), color)
    assert torch.allclose(seen.weights, torch.tensor([0.5, 0.25, 0.25]))
    assert torch.allclose(seen.opacity, torch.tensor([0.75, 0.0, 0.25]))
    # Ray 0: (0.5 * 1.5 + 0.25 * 2.5) / 0.75; ray 2 sees one sample.
    assert torch.allclose(seen.depth, torch.tensor([1.375 / 0.75, 0.0, 5.5]))
    assert torch.allclose(seen.sums[0], torch.tensor([[0.5, 0.25, 0], [0, 0, 0], [0, 0, 0.25]]))


def test_rays_enter_and_leave_the_box_at_its_faces():
    near, far = box_range(rays_along_x(2, spread=2.0), 1.0)
    assert torch.equal(near, far)  # both pass at y = -2 and 2
    near, far = box_range(rays_along_x(1, spread=0.0), 1.0)
    assert torch.allclose(near, torch.tensor([2.0])) and torch.allclose(far, torch.tensor([4.0]))


def test_a_march_covers_the_box_without_gaps():
    rays = rays_along_x(1, spread=0.0)
    near, far = box_range(rays, 1.0)
    samples = March(0.1)(rays, Everywhere(1.0, "box"), near, far)
    assert torch.allclose(samples.t_start[1:], samples.t_end[:-1], atol=1e-5)
    assert 19 <= len(samples) <= 20
    assert samples.points(rays)[:, 0].abs().max() <= 1.0 + 1e-5


def test_cone_angle_reaches_the_end_in_the_given_number_of_steps():
    assert (1 + cone_angle(1e3, 64)) ** 64 == pytest.approx(1e3, rel=1e-4)


def test_samples_behind_an_opaque_one_are_dropped():
    samples = Samples(torch.arange(4.0), torch.arange(4.0) + 1, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 3, 4]))
    alpha = torch.tensor([0.0, 1.0, 0.5, 0.5])
    kept = samples.keep(visible(samples, rays_along_x(2), lambda points, samples: alpha, "auto"))
    assert kept.t_start.tolist() == [0.0, 1.0, 3.0]
    assert kept.offsets.tolist() == [0, 2, 3] and kept.ray.tolist() == [0, 0, 1]


@pytest.mark.parametrize("law", LAWS)
def test_samples_left_out_for_their_weight_hardly_change_what_is_seen(law):
    shell = {"name": "sdf-shell", "resolution": 32}
    rays, field = rays_along_x(9, spread=0.3), small_neus(occupancy=shell, opacity={"name": law})
    field.variance.variance.data.fill_(0.5)
    field.train().update(0, 0)
    field.eval()
    everything = field(rays)
    field.config.min_weight = 1e-3
    rest = field(rays)
    n_dropped = everything.n_samples - rest.n_samples
    assert n_dropped > 0.3 * everything.n_samples
    assert (everything.opacity - rest.opacity).abs().max() < 1e-3 * n_dropped / len(rays)
    assert torch.allclose(everything.color, rest.color, atol=5e-3)


def test_behind_an_opaque_object_nothing_is_asked(monkeypatch):
    grid = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8}
    geometry = {"name": "volume-density", "feature_dim": 8, "isosurface": None, "xyz_encoding_config": grid}
    field = small_neus(
        learned_background=True,
        num_samples_per_ray_bg=16,
        geometry_bg=geometry,
        texture_bg={"name": "volume-radiance", "input_feature_dim": 8, "color_activation": "sigmoid"},
        min_weight=1e-3,
    ).eval()
    field.variance.variance.data.fill_(0.6)
    asked = []
    density = field.geometry_bg.density
    monkeypatch.setattr(field.geometry_bg, "density", lambda points: asked.append(points) or density(points))
    # Through the middle of the ball, and beside the box.
    inside, beside = rays_along_x(3, spread=0.05), rays_along_x(2, spread=2.0)
    assert field(inside).opacity.min() > 1 - 1e-3 and sum(map(len, asked)) == 0
    field(beside)
    assert sum(map(len, asked)) >= 2 * 16
