"""Laws of the Implicitron family: points on rays, passes, and the models made of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from datasets.synthetic import Synthetic
from models import global_encoders, models
from models.conditioning.encoder import GlobalEncoder
from models.fields.implicit import FieldOutput, LatentFunction, RadianceFunction, Sizes
from models.fields.isosurface import IsosurfaceConfig
from models.fields.nerf_mlp import NerfMLP
from models.implicit import ImplicitModel
from models.rendering.multipass import MultiPass
from models.rendering.ray_samplers import NearFar
from systems.evaluation import evaluate
from systems.export import ExportConfig, export_surface
from systems.image_metrics import chosen_metrics
from systems.loss_functions import LossSet
from tests.models.small import rays_of
from utils.config import parse
from utils.registry import ConfigError
from utils.schedule import Schedule
from utils.types import Context, RayPoints, Rays, Target

SMALL = {
    "name": "nerf-mlp",
    "n_hidden_neurons_xyz": 16,
    "n_hidden_neurons_dir": 8,
    "n_layers_xyz": 3,
    "append_xyz": [2],
}
GRID = {
    "name": "volume-density",
    "geometry": {
        "name": "volume-density",
        "radius": 1.5,
        "feature_dim": 5,
        "density_activation": "trunc_exp",
        "xyz_encoding_config": {"otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 8},
    },
    "texture": {"name": "volume-radiance", "input_feature_dim": 5, "color_activation": "sigmoid"},
}


def build(name: str = "generic", **options: Any) -> ImplicitModel:
    torch.manual_seed(0)
    node = {"implicit_function": SMALL, "ray_sampler": {"name": "adaptive", "n_pts_per_ray_training": 8}, **options}
    return models.make(parse(models.get(name).Config, node, "model"))


class Ball(RadianceFunction):
    """A dense ball of radius 1, coloured by position."""

    def __init__(self, density: float = 1e6):
        super().__init__()
        self.density = density

    def forward(self, rays: Rays, points: RayPoints, context: Context) -> FieldOutput:
        places = points.positions(rays)
        return FieldOutput(self.density * (1 - places.norm(dim=-1)), 0.5 + 0.5 * places)


class Latent(LatentFunction):
    def forward(self, rays: Rays, context: Context) -> Callable[[RayPoints], torch.Tensor]:
        raise NotImplementedError

    def pixel(self, rays: Rays, feature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


def test_a_ball_is_seen_at_its_distance_in_its_colour():
    rays = rays_of(64)
    renderer = MultiPass(MultiPass.Config(n_pts_per_ray_fine_evaluation=64), Sizes(), 1.5).eval()
    points = NearFar(NearFar.Config(min_depth=1.0, max_depth=5.0), 1.5).eval()(rays)
    seen = renderer(rays, points, [Ball(), Ball()], Context())
    # |o + t d| = 1 at its nearer solution.
    b = (rays.origins * rays.directions).sum(-1)
    gap = b.square() - rays.origins.square().sum(-1) + 1
    hits = gap > 0.1
    assert 10 < hits.sum() < 64
    t = -b - gap.clamp_min(0).sqrt()
    # The first point inside has all the weight, so the second pass looks half a step of 4 / 63 around it.
    torch.testing.assert_close(seen.depth[hits], t[hits], atol=0.035, rtol=0)
    expected = 0.5 + 0.5 * (rays.origins + t[:, None] * rays.directions)
    torch.testing.assert_close(seen.color[hits], expected[hits], atol=0.02, rtol=0)
    assert (seen.depth - t)[hits].abs().mean() < 0.5 * (seen.coarse.depth - t)[hits].abs().mean()
    misses = gap < -0.1
    assert (seen.opacity[misses] == 0).all() and torch.equal(seen.color[misses], rays.backdrop[misses])


def test_noise_on_densities_is_for_training():
    rays, points = rays_of(8), RayPoints(torch.linspace(1, 5, 16).expand(8, 16))
    renderer = MultiPass(MultiPass.Config(density_noise_std_train=1.0), Sizes(), 1.0)
    one, other = (renderer(rays, points, [Ball(1.0)], Context()).color for _ in range(2))
    assert not torch.equal(one, other)
    renderer.eval()
    one, other = (renderer(rays, points, [Ball(1.0)], Context()).color for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("cuts_off", [True, False])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_points_of_empty_space_are_left_out_without_a_trace(noise, cuts_off):
    marcher = {"name": "emission-absorption", "density_relu": cuts_off, "replicate_last_interval": True}
    config = {"name": "multipass-ea", "density_noise_std_train": noise, "raymarcher": marcher}
    model = build(renderer=config, num_passes=2).train()
    found, told = [], []
    for leaves_out in (True, False):
        if not leaves_out:
            for function in model.functions:
                function.register_forward_pre_hook(lambda _, asked: (*asked[:2], replace(asked[2], only_dense=False)))
        for function in model.functions:
            function.register_forward_hook(lambda _, asked, __: told.append(asked[2].only_dense))
        torch.manual_seed(1)
        model.zero_grad()
        rendered = model(rays_of(20))
        (rendered.color.square().sum() + rendered.coarse.color.sum() + rendered.opacity.sum()).backward()
        found.append([rendered.color.detach(), rendered.depth.detach(), *(p.grad for p in model.parameters())])
    assert told[:2] == [noise == 0 and cuts_off] * 2 and not any(told[-2:])
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)


def test_weights_are_there_on_request():
    config = {"name": "multipass-ea", "return_weights": True}
    model = build(renderer=config, num_passes=2)
    assert {"samples", "weights", "prev_stage_"} <= model.quantities
    rendered = model.train()(rays_of(5))
    assert rendered.samples is not None and rendered.weights is not None
    assert len(rendered.samples) == len(rendered.weights) == 5 * (8 + 64)
    # Losses of earlier passes ask for them, too.
    assert len(rendered.coarse.samples) == len(rendered.coarse.weights) == 5 * 8
    total = torch.zeros(5).index_add(0, rendered.samples.ray, rendered.weights)
    # Emission and absorption: weights add up to the opacity.
    torch.testing.assert_close(total, rendered.opacity)
    assert build().train()(rays_of(5)).weights is None


@pytest.mark.parametrize("function", [SMALL, GRID], ids=["nerf-mlp", "volume-density"])
@pytest.mark.parametrize("name", ["generic", "overfit"])
def test_rendering_in_pieces_changes_nothing(name, function):
    passes = {"num_passes": 2} if name == "generic" else {"coarse_implicit_function": SMALL}
    model = build(name, implicit_function=function, **passes).eval()
    rays = rays_of(50)
    whole = model.render(rays)
    model.config.ray_chunk = 20
    told = []
    pieces = model.render(rays, told.append)
    assert told == [0.4, 0.8, 1.0]
    for part in ("color", "opacity", "depth"):
        torch.testing.assert_close(getattr(pieces, part), getattr(whole, part), atol=1e-5, rtol=1e-5)
    assert whole.coarse is None and whole.n_samples == 50 * (64 + 128)


@pytest.mark.parametrize("function", [SMALL, GRID], ids=["nerf-mlp", "volume-density"])
def test_every_parameter_of_every_pass_learns(function):
    model = build(num_passes=3, implicit_function=function).train()
    rendered = model(rays_of(20))
    assert {"prev_stage_", "prev_stage_prev_stage_"} <= model.quantities
    stages = [rendered, rendered.coarse, rendered.coarse.coarse]
    sum(stage.color.square().sum() for stage in stages).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert rendered.n_samples == 20 * (8 + 72 + 136)


def test_parts_of_parts_start_from_their_weights(tmp_path):
    geometry = build(implicit_function=GRID).functions[0].geometry
    torch.nn.init.constant_(geometry.network.network.directions[0], 0.25)
    torch.save(geometry.state_dict(), tmp_path / "geometry.pt")
    loaded = build(implicit_function=GRID | {"geometry": GRID["geometry"] | {"weights": str(tmp_path / "geometry.pt")}})
    assert (loaded.functions[0].geometry.network.network.directions[0] == 0.25).all()
    with pytest.raises(ConfigError, match="none.pt does not exist"):
        build(implicit_function=GRID | {"geometry": GRID["geometry"] | {"weights": "none.pt"}})


def test_no_rays_are_seen_as_nothing():
    rendered = build(num_passes=2).eval()(rays_of(0))
    assert rendered.color.shape == (0, 3) and rendered.n_samples == 0


def test_a_shared_function_is_asked_twice_and_learnt_once():
    model = build("overfit", share_implicit_function_across_passes=True)
    assert len(model.functions) == 2 and model.functions[0] is model.functions[1]
    assert len(list(model.parameters())) == len(list(build("overfit").parameters()))
    with pytest.raises(ConfigError, match="coarse_implicit_function has no effect"):
        build("overfit", share_implicit_function_across_passes=True, coarse_implicit_function=SMALL)


def test_a_coarse_function_may_be_of_another_kind():
    model = build("overfit", coarse_implicit_function=GRID)
    assert [type(function).__name__ for function in model.functions] == ["VolumeFunction", "NerfMLP"]
    assert model.eval()(rays_of(4)).coarse is not None


def test_features_need_a_background_of_their_own():
    with pytest.raises(ConfigError, match="render_features_dimensions is 5"):
        build(render_features_dimensions=5)
    renderer = {"name": "multipass-ea", "raymarcher": {"name": "cumsum", "bg_color": [0.0]}}
    model = build(render_features_dimensions=5, renderer=renderer).eval()
    assert model(rays_of(4)).color.shape == (4, 5)


def test_a_renderer_refuses_functions_that_it_cannot_ask(monkeypatch):
    model = build()
    monkeypatch.setattr(model, "functions", torch.nn.ModuleList([Latent()]))
    with pytest.raises(ConfigError, match="MultiPass asks for a RadianceFunction, but Latent is a LatentFunction"):
        model._check_passes()
    model = build(num_passes=2)
    monkeypatch.setattr(model.renderer, "max_passes", 1)
    with pytest.raises(ConfigError, match="takes 1 pass, but the model has 2"):
        model._check_passes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_passes": 0}, "num_passes is 0"),
        ({"pixel_sampling": "full-grid"}, "batch_image_sampling=false"),
        ({"implicit_function": {"name": "nerf-mlp", "append_xyz": [8]}}, "append_xyz is \\[8\\]"),
        ({"implicit_function": {"name": "nerf-mlp", "input_xyz": False}}, "input_xyz is false"),
        ({"implicit_function": {"name": "nerf-mlp", "n_layers_xyz": 0}}, "n_layers_xyz is 0; expected 1 or more"),
        ({"implicit_function": SMALL | {"n_hidden_neurons_dir": 0}}, "n_hidden_neurons_dir is 0; expected 1"),
        ({"implicit_function": SMALL | {"n_harmonic_functions_xyz": -1}}, "n_harmonic_functions_xyz is -1"),
        ({"implicit_function": SMALL | {"input_xyz": False, "use_integrated_positional_encoding": True}}, "remove one"),
        ({"render_features_dimensions": 0}, "render_features_dimensions is 0; expected 1 or more"),
        ({"train_num_rays": 0}, "train_num_rays is 0; expected 1 or more"),
        ({"ray_chunk": 0}, "ray_chunk is 0; expected 1 or more"),
        ({"radius": 0.0}, "radius is 0.0; expected more than 0"),
        ({"ray_sampler": {"name": "adaptive", "scene_extent": -1.0}}, "scene_extent is -1"),
        ({"ray_sampler": {"name": "near-far", "min_depth": 5.0, "max_depth": 1.0}}, "max_depth is 1.0; expected"),
        ({"renderer": {"name": "multipass-ea", "n_pts_per_ray_fine_training": -1}}, "fine_training is -1; expected 1"),
        ({"renderer": {"name": "multipass-ea", "sample_pdf_eps": 0.0}}, "sample_pdf_eps is 0.0; expected more than 0"),
        (
            {"renderer": {"name": "multipass-ea", "raymarcher": {"name": "cumsum", "surface_thickness": 0}}},
            "surface_thickness is 0; expected 1 or more",
        ),
        ({"renderer": {"name": "lstm", "hidden_size": 0}}, "hidden_size is 0; expected 1 or more"),
        ({"renderer": {"name": "sdf", "ray_tracer": {"line_search_step": 2.0}}}, "line_search_step is 2.0; expected"),
        (
            {"renderer": {"name": "multipass-ea", "raymarcher": {"name": "cumsum", "bg_color": [0, 1]}}},
            "bg_color has 2",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_cones_are_asked_for_by_name():
    cones = SMALL | {"use_integrated_positional_encoding": True}
    model = build(implicit_function=cones)
    with pytest.raises(ConfigError, match="cast_ray_bundle_as_cone"):
        model(rays_of(2))
    sampler = {"name": "near-far", "cast_ray_bundle_as_cone": True}
    model = build(
        ray_sampler=sampler,
        num_passes=2,
        implicit_function=model.config.implicit_function and SMALL | {"use_integrated_positional_encoding": True},
    )
    assert model(rays_of(2)).color.isfinite().all()
    assert model.level(torch.randn(3, 3)).isfinite().all()


def test_two_points_are_too_few_for_a_second_pass():
    model = build(num_passes=2, ray_sampler={"name": "near-far", "n_pts_per_ray_training": 2})
    with pytest.raises(ConfigError, match="gives 2 points a ray; multipass-ea with 2 passes needs 3"):
        model(rays_of(2))


def test_a_code_belongs_to_its_ray():
    torch.manual_seed(0)
    function = NerfMLP(NerfMLP.Config(n_hidden_neurons_xyz=16, n_layers_xyz=3, append_xyz=[1]), Sizes(3, 4))
    rays, points, code = rays_of(4), RayPoints(torch.rand(4, 5)), torch.randn(4, 4)
    whole = function(rays, points, Context(code))
    single = function(rays[2:3], points[2:3], Context(code)[2:3])
    torch.testing.assert_close(whole.feature[2:3], single.feature)
    other = function(rays, points, Context(code.flip(0)))
    assert not torch.allclose(whole.density, other.density)


class Codes(GlobalEncoder):
    """A learnt code per scene."""

    @dataclass
    class Config:
        n_scenes: int = 2

    n_outputs = 4
    has_norm = True

    def __init__(self, config: "Codes.Config"):
        super().__init__()
        self.codes = torch.nn.Parameter(torch.randn(config.n_scenes, 4))

    def forward(self, rays: Rays) -> torch.Tensor:
        return self.codes[rays.scene]

    def norm(self) -> torch.Tensor:
        return self.codes.square().mean()


def test_codes_of_scenes_reach_every_pass_the_losses_and_the_mesh(monkeypatch):
    global_encoders.names()
    monkeypatch.setitem(global_encoders._parts, "test-codes", Codes)
    model = build(num_passes=2, global_encoder={"name": "test-codes"})
    assert model.quantities == {"prev_stage_", "code_norm"}
    rendered = model.train()(rays_of(6))
    losses = LossSet({"lambda_autodecoder_norm": Schedule.constant(2.0)}, model.quantities)
    report = losses(rendered, Target(torch.zeros(6, 3)), 0, 0)
    torch.testing.assert_close(report.total, 2 * model.global_encoder.codes.square().mean())
    (rendered.color.sum() + rendered.coarse.color.sum()).backward()
    assert (model.global_encoder.codes.grad != 0).any(dim=1).all()

    rays = rays_of(30)
    whole = model.eval().render(rays)
    assert whole.code_norm is None
    rays.scene = 1 - rays.scene
    assert not torch.allclose(model.render(rays).color, whole.color)
    points = torch.randn(5, 3)
    before = model.level(points)
    with torch.no_grad():
        model.global_encoder.codes[1] += 1
    assert torch.equal(model.level(points), before)
    with torch.no_grad():
        model.global_encoder.codes[0] += 1
    assert not torch.equal(model.level(points), before)


def test_features_are_shown_but_not_scored():
    renderer = {"name": "multipass-ea", "raymarcher": {"name": "cumsum", "bg_color": [0.0]}}
    model = build(render_features_dimensions=5, renderer=renderer, radius=1.3).eval()
    views = Synthetic(Synthetic.Config(n_train_views=1, n_test_views=1, size=8, samples_per_pixel=1)).views("test")
    scores, panel = evaluate(model, views, 0, torch.ones(3), chosen_metrics({}))
    assert scores == {"view": "test_000"} and panel.shape == (8, 32, 3)
    scores, _ = evaluate(build(radius=1.3).eval(), views, 0, torch.ones(3), chosen_metrics({}))
    assert {"view", "psnr", "psnr_fg", "mask_iou", "depth_abs_fg"} <= scores.keys()


@pytest.mark.parametrize("function", [SMALL, GRID], ids=["nerf-mlp", "volume-density"])
def test_the_mesh_of_a_density_is_where_it_crosses_the_threshold(function):
    model = build(implicit_function=function, num_passes=2).eval()
    points = torch.randn(100, 3)
    assert model.isosurface is not None and model.isosurface.threshold == 5.0 and not model.is_distance
    ends = RayPoints(torch.zeros(100, 1))
    rays = rays_of(100)
    rays.origins, rays.directions = points.clamp(-1.5, 1.5), -rays.directions
    answer = model.functions[1](rays, ends, Context())
    torch.testing.assert_close(model.level(rays.origins), 5 - answer.density[:, 0])
    torch.testing.assert_close(model.surface_color(rays.origins, -rays.directions), answer.feature[:, 0])


def test_a_density_is_exported_in_its_colours(tmp_path):
    model = build(radius=1.3).eval()
    ball = Ball(density=10.0)
    ball.isosurface = IsosurfaceConfig(resolution=32, threshold=2.0)
    model.functions[0] = ball
    exported = export_surface(model, ExportConfig(texture_size=0), tmp_path, "it0")
    assert exported is not None
    mesh, paths = exported.full, exported.paths
    # 10 (1 - r) = 2; linear interpolation in cells of 2.6 / 32.
    torch.testing.assert_close(mesh.vertices.norm(dim=-1), torch.full((len(mesh.vertices),), 0.8), atol=2e-3, rtol=0)
    torch.testing.assert_close(mesh.colors, 0.5 + 0.5 * mesh.vertices, atol=1e-5, rtol=0)
    assert [path.name for path in paths] == ["it0-mc32.obj", "it0-mc32.ply"]
    assert all(path.is_file() for path in paths)
