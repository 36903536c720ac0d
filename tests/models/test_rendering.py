"""Laws of opacity, compositing, marching, occupancy and the models built from them."""

import math

import pytest
import torch

from models import models
from models.nerf import NeRF
from models.neus import NeuS, Variance, VarianceConfig
from models.rendering.composite import composite
from models.rendering.marching import March, box_range, cone_angle, visible
from models.rendering.occupancy import EMPTY, SOLID, SURFACE, Everywhere, FieldView, MovingAverage, SurfaceShell
from models.rendering.opacity import NeusOpacity, VolsdfOpacity, annealed_slope, density_alpha
from systems.loss_functions import tangent_curvature
from utils.config import parse
from utils.contraction import contract
from utils.registry import ConfigError
from utils.types import Rays, Samples, Target


def rays_along_x(n: int = 5, spread: float = 0.2) -> Rays:
    """Rays from x = -3 towards +x, spread over y."""
    y = torch.linspace(-spread, spread, n)
    origins = torch.stack([torch.full((n,), -3.0), y, torch.zeros(n)], dim=-1)
    directions = torch.tensor([[1.0, 0, 0]]).expand(n, 3).contiguous()
    zeros = torch.zeros(n, dtype=torch.int64)
    return Rays(origins, directions, torch.ones(n, 3), zeros, torch.zeros(n, 2, dtype=torch.int64))


def small_neus(**options) -> NeuS:
    grid = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "per_level_scale": 1.5, "include_xyz": True}
    node = {
        "name": "neus",
        "radius": 1.0,
        "num_samples_per_ray": 128,
        "geometry": {
            "name": "volume-sdf",
            "radius": 1.0,
            "feature_dim": 5,
            "xyz_encoding_config": grid,
            "mlp_network_config": {"otype": "VanillaMLP", "n_neurons": 32, "sphere_init": True, "weight_norm": True},
        },
        "texture": {"name": "volume-radiance", "input_feature_dim": 8, "color_activation": "sigmoid"},
        **options,
    }
    torch.manual_seed(0)
    return models.make(parse(NeuS.Config, {k: v for k, v in node.items() if k != "name"}, "model"))


def small_nerf(**options) -> NeRF:
    grid = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "per_level_scale": 1.5}
    node = {
        "radius": 1.0,
        "num_samples_per_ray": 64,
        "geometry": {
            "name": "volume-density",
            "radius": 1.0,
            "density_activation": "trunc_exp",
            "xyz_encoding_config": grid,
        },
        "texture": {"name": "volume-radiance", "input_feature_dim": 16, "color_activation": "sigmoid"},
        **options,
    }
    torch.manual_seed(0)
    return models.make(parse(NeRF.Config, node, "model"))


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


def ball(points: torch.Tensor) -> torch.Tensor:
    return points.norm(dim=-1) - 0.5


def test_a_shell_holds_the_surface_and_calls_its_inside_solid():
    grid = SurfaceShell(SurfaceShell.Config(resolution=32), 1.0, "box")
    grid.refresh(0, FieldView(opacity=ball, sdf=ball, sharpness=1000.0), seed=0)
    torch.manual_seed(0)
    points = torch.rand(20000, 3) * 2 - 1
    state, sdf = grid.at(points), ball(points)
    assert (state[sdf.abs() < 1e-2] == SURFACE).all()
    assert (state[sdf < -0.2] == SOLID).all() and (state[sdf > 0.2] == EMPTY).all()
    assert (sdf[state == EMPTY] > 0).all() and (sdf[state == SOLID] < 0).all()


def test_a_shell_narrows_as_the_surface_sharpens():
    shares = []
    for sharpness in (20.0, 100.0, 1000.0):
        grid = SurfaceShell(SurfaceShell.Config(resolution=32), 1.0, "box")
        grid.refresh(0, FieldView(opacity=ball, sdf=ball, sharpness=sharpness), seed=0)
        shares.append(grid.share())
    assert shares[0] > shares[1] > shares[2] > 0


@pytest.mark.parametrize("contraction", ["box", "sphere"])
def test_a_moving_average_finds_what_is_opaque(contraction):
    grid = MovingAverage(MovingAverage.Config(resolution=16), 1.0, contraction, threshold=0.01)
    inside = lambda points: (points.norm(dim=-1) < 0.6).float()  # noqa: E731
    grid.refresh(0, FieldView(opacity=inside), seed=0)
    first = grid.cells.clone()
    for step in range(1, 400):
        grid.refresh(step, FieldView(opacity=inside), seed=0)
    assert grid.cells.sum() >= first.sum() > 0
    if contraction == "box":
        # A cell is marked if it touches the ball: its share is near the ball's.
        assert grid.share() == pytest.approx(4 / 3 * math.pi * 0.6**3 / 8, rel=0.45)


def test_grids_are_equal_for_equal_seeds_whatever_else_drew_numbers():
    grids = [MovingAverage(MovingAverage.Config(resolution=8), 1.0, "box") for _ in range(2)]
    for grid in grids:
        torch.rand(3 if grid is grids[0] else 5)
        for step in range(0, 400, 16):
            grid.refresh(step, FieldView(opacity=lambda points: torch.relu(-ball(points))), seed=7)
    assert torch.equal(grids[0].opacity, grids[1].opacity)


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


@pytest.mark.parametrize("law", LAWS)
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


def test_a_grid_knows_how_far_its_full_cells_are():
    grid = MovingAverage(MovingAverage.Config(resolution=8), 1.0, "box")
    cells = torch.zeros(8, 8, 8, dtype=torch.uint8)
    cells[6, 2, 5] = SURFACE  # z, y, x: x in [0.25, 0.5], y in [-0.5, -0.25], z in [0.5, 0.75]
    grid._fill(cells)
    torch.manual_seed(0)
    points = 2 * torch.rand(5000, 3) - 1
    distance = (points - torch.tensor([0.375, -0.375, 0.625])).abs().amax(dim=-1) - 0.125
    for reach in (0.0, 0.2, 0.25):
        near = grid.near(points, reach)
        assert near[distance <= reach].all()
        assert not near[distance > reach + 0.25].any()  # a cell is 0.25 wide


def test_a_contracted_grid_is_near_wherever_a_full_cell_is():
    grid = MovingAverage(MovingAverage.Config(resolution=32), 1.0, "sphere")
    grid._fill(torch.zeros(32, 32, 32, dtype=torch.uint8))
    torch.manual_seed(1)
    full, shift = 2 * torch.rand(300, 3) - 1, torch.rand(300, 3) - 0.5
    assert not grid.near(full, 0.1).any()
    for point, offset in zip(full, shift, strict=True):
        x, y, z = (contract(point[None], 1.0, "sphere")[0] * 32).long()
        grid.cells.zero_()
        grid.cells[z, y, x] = SURFACE
        near = (point + offset)[None]
        assert grid.near(near, offset.abs().max().item())


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
