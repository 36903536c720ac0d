"""Laws of NeuS, and of what NeRF shares with it."""

import pytest
import torch

from models.neus import NeuS, Variance, VarianceConfig
from models.rendering.marching import box_range
from systems.loss_functions import tangent_curvature
from tests.models.small import ball, rays_along_x, small_nerf, small_neus
from utils.config import parse
from utils.registry import ConfigError
from utils.types import Target


def test_sharpness_starts_at_e_cubed():
    assert Variance(VarianceConfig())().item() == pytest.approx(20.0855, rel=1e-5)


def test_modulation_limits_growth_and_survives_a_checkpoint():
    variance = Variance(VarianceConfig(modulate=True, mod_start_steps=10, reach_max_steps=100, max_inv_s=200.0))
    variance.update(9)
    assert variance().item() == pytest.approx(20.0855, rel=1e-4)
    variance.variance.data.fill_(1.0)  # s would be 22026
    variance.update(50)
    expected = 0.5 * (200 - 20.0855) + 20.0855
    assert variance().item() == pytest.approx(expected, rel=1e-4)
    resumed = Variance(variance.config)
    resumed.load_state_dict(variance.state_dict())
    resumed.update(50)
    assert resumed().item() == pytest.approx(expected, rel=1e-4)
    variance.update(1000)
    assert variance().item() == pytest.approx(200.0)


@pytest.mark.parametrize("law", ["neus", "volsdf"])
@pytest.mark.parametrize("occupancy", ["moving-average", "sdf-shell"])
def test_neus_sees_its_initial_sphere_at_its_distance(occupancy, law):
    options = {"name": occupancy, "resolution": 32}
    model = small_neus(num_samples_per_ray=512, occupancy=options, variance={"init_val": 0.7}, opacity={"name": law})
    model.geometry.network.forward = lambda x, n_outputs=None: ball(2 * x - 1)[:, None]  # type: ignore[method-assign]

    def exact(x):
        points = 2 * x - 1
        return ball(points)[:, None].expand(-1, 5), torch.nn.functional.normalize(points, dim=-1) * 2

    model.geometry.network.with_gradient = exact  # type: ignore[method-assign]
    model.train()
    for step in range(0, 256, 16):  # a random point per cell and visit: several visits until all cells are found
        model.update(step, 0)
    model.eval()
    rendered = model.render(rays_along_x(5, spread=0.2))
    y = torch.linspace(-0.2, 0.2, 5)
    x = -torch.sqrt(0.25 - y**2)
    assert torch.allclose(rendered.depth, 3 + x, atol=0.02)
    assert rendered.opacity.min() > 0.99
    assert torch.allclose(rendered.normal, torch.stack([x, y, 0 * y], -1) / 0.5, atol=0.05)


def test_rays_that_hit_nothing_see_the_backdrop():
    for model in (small_neus(), small_nerf()):
        model.eval()
        rays = rays_along_x(3, spread=5.0)[torch.tensor([0, 2])]
        rendered = model.render(rays)
        assert torch.equal(rendered.color, rays.backdrop)
        assert torch.equal(rendered.opacity, torch.zeros(2))


@pytest.mark.parametrize("make", [small_neus, small_nerf])
def test_rendering_in_pieces_changes_nothing(make):
    model = make()
    model.eval()
    model.update(0, 0)
    rays = rays_along_x(50)
    whole = model.render(rays)
    model.config.ray_chunk = 7
    pieces = model.render(rays)
    assert torch.allclose(whole.color, pieces.color, atol=1e-6) and torch.allclose(whole.depth, pieces.depth, atol=1e-5)


@pytest.mark.parametrize("make", [small_neus, small_nerf])
def test_every_parameter_learns_even_from_rays_without_samples(make):
    model = make()
    model.train()
    model.update(0, 0)
    for rays in (rays_along_x(20), rays_along_x(2, spread=5.0)):
        model.zero_grad()
        rendered = model(rays)
        loss = rendered.color.sum() + rendered.opacity.sum()
        if rendered.gradient is not None:
            loss = loss + rendered.gradient.sum() + rendered.sdf.sum()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())


def test_a_learned_background_lies_behind_the_object():
    background = {
        "geometry_bg": {
            "name": "volume-density",
            "feature_dim": 8,
            "density_activation": "trunc_exp",
            "isosurface": None,
        },
        "texture_bg": {"name": "volume-radiance", "input_feature_dim": 8, "color_activation": "sigmoid"},
    }
    background["geometry_bg"]["xyz_encoding_config"] = {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8}
    model = small_neus(learned_background=True, num_samples_per_ray_bg=16, grid_prune=False, **background)
    assert "background" in model.quantities
    model.train()
    rays = rays_along_x(4)
    rendered = model(rays)
    _, far = box_range(rays, 1.0)
    behind = rendered.background
    assert (behind.samples.t_start >= far[behind.samples.ray] - 1e-4).all()
    assert rendered.n_samples == len(rendered.samples) + len(behind.samples)


def test_a_background_without_parts_is_refused():
    with pytest.raises(ConfigError, match="geometry_bg"):
        parse(NeuS.Config, {"learned_background": True}, "model")


def test_a_threshold_that_a_shell_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="grid_prune_occ_thre has no effect with occupancy.name=sdf-shell"):
        small_neus(occupancy={"name": "sdf-shell", "resolution": 32}, grid_prune_occ_thre=0.5)


def test_annealing_that_a_law_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="cos_anneal_end has no effect with opacity.name=volsdf"):
        small_neus(opacity={"name": "volsdf"}, cos_anneal_end=100)


def test_a_texture_of_the_wrong_width_is_refused_with_the_right_one():
    with pytest.raises(ConfigError, match="set it to 8"):
        small_neus(texture={"name": "volume-radiance", "input_feature_dim": 7})


def test_probes_know_empty_cells():
    model = small_neus(num_probes=500, occupancy={"name": "sdf-shell", "resolution": 16}, variance={"init_val": 0.6})
    model.train()
    model.update(0, 0)
    probes = model(rays_along_x(10)).probes
    assert probes.is_empty.any() and not probes.is_empty.all()
    assert (probes.sdf[probes.is_empty] > 0).all()


def test_neighbours_lie_one_step_away_in_the_tangent_plane():
    model = small_neus(num_neighbors=64)
    model.geometry.finite_difference_eps = 0.05

    def exact(x):
        points = 2 * x - 1
        return ball(points)[:, None].expand(-1, 5), 2 * torch.nn.functional.normalize(points, dim=-1)

    model.geometry.network.with_gradient = exact  # type: ignore[method-assign]
    model.train()
    rays = rays_along_x(20)
    seen = model(rays)
    assert "neighbors" in model.quantities and len(seen.neighbors.sample) == 64
    # On a sphere of radius r around the middle the normal turns by atan(step / r).
    row = seen.neighbors.sample
    radius = seen.samples.points(rays)[row].norm(dim=-1)
    cosine = (seen.gradient[row] * seen.neighbors.gradient).sum(-1)
    assert torch.allclose(cosine, radius / (radius**2 + 0.05**2).sqrt(), atol=1e-4)
    expected = (1 - cosine).square().mean()
    target = Target(rays.backdrop)
    assert tangent_curvature(seen, target).item() == pytest.approx(expected.item(), rel=1e-4)
    missed = model(rays_along_x(2, spread=5.0))
    assert tangent_curvature(missed, target) == 0


def test_rays_learn_where_they_should_be():
    gradients = []
    for backend in ("auto", "reference"):
        model = small_neus(backend=backend)
        for part in (model.geometry.network.encoding, model.geometry.network.network, model.texture):
            part.backend = backend
        model.train()
        rays = rays_along_x(5)
        moving = [rays.origins.requires_grad_(), rays.directions.requires_grad_()]
        torch.manual_seed(0)
        model(rays).color.square().sum().backward()
        gradients.append(torch.stack([part.grad for part in moving]))
    assert gradients[0].isfinite().all() and (gradients[0].norm(dim=-1) > 0).all()
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4 * gradients[1].abs().max().item())


def test_weights_start_a_geometry_from_a_file(tmp_path):
    source = small_neus()
    source.geometry.network.network.biases[0].data.fill_(0.123)
    torch.save(source.geometry.state_dict(), tmp_path / "geometry.pt")
    node = {"name": "volume-sdf", "radius": 1.0, "feature_dim": 5, "weights": str(tmp_path / "geometry.pt")}
    node["xyz_encoding_config"] = {
        "otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "per_level_scale": 1.5, "include_xyz": True,
    }  # fmt: skip
    node["mlp_network_config"] = {"otype": "VanillaMLP", "n_neurons": 32, "sphere_init": True, "weight_norm": True}
    assert small_neus(geometry=node).geometry.network.network.biases[0][0].item() == pytest.approx(0.123)
    with pytest.raises(ConfigError, match="does not exist"):
        small_neus(geometry={**node, "weights": str(tmp_path / "none.pt")})


def test_a_density_is_meshed_where_its_grid_is_not_empty():
    model = small_nerf(grid_prune_occ_thre=0.01)
    told = 0.01 / model.march.step  # the least density that the grid tells from nothing
    points = 2 * torch.rand(100, 3) - 1
    model.occupancy._fill(torch.zeros_like(model.occupancy.cells))
    model.isosurface.threshold = 1.1 * told
    assert not model.may_hold_surface(points, 0.1).any()
    model.isosurface.threshold = 0.9 * told
    assert model.may_hold_surface(points, 0.1).all()
    assert small_neus().may_hold_surface(points, 0.1).all()


@pytest.mark.parametrize(("make", "grows"), [(small_neus, True), (small_nerf, False)])
def test_a_higher_threshold_lies_farther_out_for_a_distance_and_farther_in_for_a_density(make, grows):
    model = make()
    points = 2 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 1
    values = model.geometry.sdf(points) if grows else model.geometry.density(points)
    inside = []
    for threshold in values.quantile(torch.tensor([0.3, 0.6])).tolist():
        model.isosurface.threshold = threshold
        inside.append(model.level(points) < 0)
    few, many = inside if grows else inside[::-1]
    assert (many | ~few).all() and many.sum() > few.sum() > 0


def test_the_colour_of_a_surface_is_that_of_the_fields_own_normal_seen_along_the_given_one():
    model = small_neus()
    points, normals = torch.rand(50, 3) - 0.5, torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    field = model.geometry(points)
    torch.testing.assert_close(model.geometry.feature(points), field.feature)
    own = torch.nn.functional.normalize(field.gradient, dim=-1)
    expected = model.texture(field.feature, -normals, own).clamp(0, 1)
    torch.testing.assert_close(model.surface_color(points, normals), expected)
