"""Laws of distance functions of the Implicitron family and of the renderer of their surfaces."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import implicit_functions, models, renderers
from models.fields.idr import IdrField
from models.fields.implicit import DistanceFunction, Sizes
from models.fields.volume_distance import VolumeDistance
from models.generic import Generic
from models.mesh import extract_surface
from models.rendering import sdf_renderer
from models.rendering.normal_color import NormalColor
from models.rendering.sdf_renderer import SdfRenderer, attached
from tests.models.test_sphere_tracing import fan
from utils.config import parse
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays, Rendered

GRID = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "per_level_scale": 1.5, "include_xyz": True}
SPHERE = {"otype": "VanillaMLP", "n_neurons": 32, "sphere_init": True, "weight_norm": True}
HASHED = {
    "name": "volume-sdf",
    "geometry": {"name": "volume-sdf", "feature_dim": 4, "xyz_encoding_config": GRID, "mlp_network_config": SPHERE},
}
SMALL = {"name": "idr", "dims": [32, 32, 32], "skip_in": [2], "n_harmonic_functions_xyz": 2, "bias": 0.6}
COLOR = {"dims": [16], "n_harmonic_functions_dir": 1}
NOTHING = Context()


class Ball(DistanceFunction):
    """A ball whose place and radius are learnt; a code, if there is one, is added to the radius."""

    def __init__(self, radius: float = 0.6):
        super().__init__()
        self.center, self.radius = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.tensor(radius))

    def forward(self, points: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        radius = self.radius if context.code is None else self.radius + context.code[:, 0]
        return (points - self.center).norm(dim=-1) - radius, torch.sin(5 * points)


def function(node: dict[str, Any], n_code: int = 0) -> Any:
    torch.manual_seed(0)
    options = {key: value for key, value in node.items() if key != "name"}
    schema = implicit_functions.get(node["name"]).Config
    return implicit_functions.make(parse(schema, options, "model.implicit_function"), Sizes(3, n_code))


def renderer(**options) -> SdfRenderer:
    torch.manual_seed(0)
    config = parse(SdfRenderer.Config, {"ray_normal_coloring_network": COLOR, **options}, "model.renderer")
    return renderers.make(config, Sizes(), 1.0)


def model(implicit: dict[str, Any], **options) -> Generic:
    torch.manual_seed(0)
    node = {
        "radius": 1.0,
        "implicit_function": implicit,
        "ray_sampler": {"name": "adaptive", "n_pts_per_ray_training": 0, "n_pts_per_ray_evaluation": 0},
        "renderer": {"name": "sdf", "ray_normal_coloring_network": COLOR},
        **options,
    }
    return models.make(parse(Generic.Config, node, "model"))


def seen(module: SdfRenderer, field: DistanceFunction, rays: Rays, context: Context = NOTHING) -> Rendered:
    return module(rays, RayPoints(rays.origins[:, :0]), [field], context)


def masked(rays: Rays, mask: Tensor | float) -> Rays:
    return replace(rays, mask=torch.ones(len(rays)) * mask)


@pytest.mark.parametrize(("n_harmonics", "n_code", "skip"), [(0, 0, 2), (6, 0, 2), (6, 5, 2), (6, 5, 4)])
def test_the_network_starts_as_a_sphere_of_the_stated_radius(n_harmonics: int, n_code: int, skip: int) -> None:
    torch.manual_seed(0)
    options = IdrField.Config(dims=4 * [256], skip_in=[skip], n_harmonic_functions_xyz=n_harmonics, bias=0.6)
    field = IdrField(options, Sizes(3, n_code))
    directions = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    context = Context(torch.randn(1, n_code).expand(500, n_code) if n_code else None)
    level = {radius: field.distance(radius * directions, context) for radius in (0.35, 0.6, 0.85)}
    assert level[0.35].max() < 0 < level[0.85].min()
    assert level[0.6].mean().abs() < 0.02 and level[0.6].std() < 0.12
    _, gradient, _ = field.with_gradient(0.6 * directions, context)
    slope = (gradient * directions).sum(-1)
    assert slope.min() > 0.3 and slope.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("is_normalised", [True, False])
def test_the_gradient_of_the_network_is_its_slope_and_is_differentiable_again(is_normalised: bool) -> None:
    field = function({**SMALL, "weight_norm": is_normalised, "dims": [16, 16, 16], "n_harmonic_functions_xyz": 1})
    field = field.double()
    points = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: field(x, NOTHING), points)
    assert torch.autograd.gradcheck(lambda x: field.with_gradient(x, NOTHING)[1], points)
    weight = max(field.parameters(), key=torch.numel)
    (field.with_gradient(points.detach(), NOTHING)[1].norm(dim=1) - 1).square().sum().backward()
    step = torch.zeros_like(weight)
    step[0, 0] = 1e-6
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step
            losses.append((field.with_gradient(points, NOTHING)[1].norm(dim=1) - 1).square().sum().item())
            weight -= sign * step
    assert weight.grad[0, 0].item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-8)


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_harmonic_functions_xyz is -1; expected 0 or more"):
        function({"name": "idr", "n_harmonic_functions_xyz": -1})
    with pytest.raises(ConfigError, match=r"skip_in is \[3\]; expected layers from 1 to 2"):
        function({"name": "idr", "dims": [8, 8], "skip_in": [3]})
    with pytest.raises(ConfigError, match=r"dims\[0\] = 8 has to exceed the 15 inputs"):
        function({"name": "idr", "dims": [8, 8], "skip_in": [1], "n_harmonic_functions_xyz": 2})
    with pytest.raises(ConfigError, match="feature_dim is 13; expected 4"):
        function({"name": "volume-sdf"})
    with pytest.raises(ConfigError, match="takes no code"):
        function(HASHED, n_code=2)


def test_a_hash_grid_says_the_same_as_autograd_within_its_box_and_outside() -> None:
    field = function(HASHED)
    with torch.no_grad():
        field.geometry.network.encoding.table.normal_(0, 0.1)
    points = 1.5 * (2 * torch.rand(200, 3) - 1)
    assert 20 < (points.abs() < 1).all(dim=1).sum() < 180
    sdf, gradient, feature = field.with_gradient(points, NOTHING)
    assert feature.shape == (200, 3)
    assert torch.allclose(sdf, field.distance(points, NOTHING), atol=1e-6)
    points.requires_grad_()
    (slope,) = torch.autograd.grad(field.distance(points, NOTHING).sum(), points)
    assert torch.allclose(gradient, slope, atol=1e-5)


@pytest.mark.parametrize("mode", ["idr", "no_view_dir", "no_normal"])
def test_a_colour_depends_on_what_its_mode_names_and_on_nothing_else(mode: str) -> None:
    torch.manual_seed(0)
    color = NormalColor(parse(NormalColor.Config, {"mode": mode, "dims": [32, 32]}), Sizes())
    inputs = [torch.randn(10, 3) for _ in range(4)]  # position, normal, direction, feature
    first = color(*inputs)
    assert ((first > 0) & (first < 1)).all()
    matters = []
    for index in range(4):
        others = [torch.randn(10, 3) if index == row else part for row, part in enumerate(inputs)]
        matters.append(not torch.equal(color(*others), first))
    assert matters == [True, mode != "no_normal", mode != "no_view_dir", True]


def test_an_option_of_the_colour_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_harmonic_functions_dir has no effect with mode=no_view_dir"):
        parse(NormalColor.Config, {"mode": "no_view_dir", "n_harmonic_functions_dir": 4})


def test_a_surface_point_moves_with_the_field_as_finite_differences_say() -> None:
    lines = fan(20, spread=0.15)
    origins, directions = lines.origins.double(), lines.directions.double()

    def hit(center: Tensor, radius: float) -> Tensor:
        """Where rays enter a ball, in closed form."""
        away = origins - center
        along = (away * directions).sum(-1)
        t = -along - (along.square() - away.square().sum(-1) + radius**2).sqrt()
        return origins + t[:, None] * directions

    ball = Ball().double()
    points = hit(torch.zeros(3), ball.radius.item()).detach()
    sdf, gradient, _ = ball.with_gradient(points, NOTHING)
    moving = attached(points, directions, sdf, gradient)
    assert torch.equal(moving, points)
    weight = torch.randn(20, 3, dtype=torch.float64)
    (moving * weight).sum().backward()

    eps, zero, radius = 1e-6, torch.zeros(3, dtype=torch.float64), ball.radius.item()
    difference = lambda more, less: ((more - less) * weight).sum().item() / (2 * eps)  # noqa: E731
    expected = difference(hit(zero, radius + eps), hit(zero, radius - eps))
    assert ball.radius.grad.item() == pytest.approx(expected, rel=1e-6)
    for axis in range(3):
        step = eps * torch.eye(3, dtype=torch.float64)[axis]
        expected = difference(hit(step, radius), hit(-step, radius))
        assert ball.center.grad[axis].item() == pytest.approx(expected, rel=1e-5)


def test_a_grazing_ray_gives_a_finite_gradient() -> None:
    ball = Ball().double()
    point = torch.tensor([[0.0, 0.6, 0.0]], dtype=torch.float64)
    sdf, gradient, _ = ball.with_gradient(point, NOTHING)
    attached(point, torch.tensor([[1.0, 0, 0]], dtype=torch.float64), sdf, gradient).sum().backward()
    assert ball.radius.grad.abs().item() == pytest.approx(1e4)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_ball_is_seen_with_its_depth_and_normals_before_the_backdrop(is_training: bool) -> None:
    lines = replace(masked(fan(), 1.0), backdrop=torch.rand(200, 3))
    rendered = seen(renderer().train(is_training), Ball(), lines)
    hit = rendered.depth > 0
    assert 50 < hit.sum() < 150
    at = lines.origins + rendered.depth[:, None] * lines.directions
    assert (at[hit].norm(dim=1) - 0.6).abs().max() < 1e-3
    assert torch.allclose(rendered.normal[hit], at[hit] / 0.6, atol=5e-3) and not rendered.normal[~hit].any()
    assert (rendered.opacity[hit] == 1).all() and (rendered.opacity[~hit] < 0.51).all()
    assert torch.equal(rendered.color[~hit], lines.backdrop[~hit])
    assert not torch.isclose(rendered.color[hit], lines.backdrop[hit]).all(dim=1).any()
    assert (rendered.gradient is not None) == is_training
    if is_training:
        assert rendered.gradient.shape == (300, 3)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_view_without_any_hit_has_the_soft_mask_of_its_distances_and_still_teaches(is_training: bool) -> None:
    # The published code calls such a view opaque everywhere [D10].
    ball, module = Ball(0.2), renderer().train(is_training)
    lines = fan(spread=0.1)
    lines = masked(replace(lines, origins=lines.origins + torch.tensor([0.0, 0, 0.9])), 1.0)
    rendered = seen(module, ball, lines)
    assert not rendered.normal.any() and not rendered.depth.any()
    assert rendered.opacity.max() < 0.01 and rendered.opacity.unique().numel() > 50
    # Nothing is coloured, but a loss of colours alone must not stop the program.
    rendered.color.sum().backward()
    if is_training:
        seen(module, ball, lines).opacity.sum().backward()
        assert ball.radius.grad > 0


def test_masks_move_the_surface() -> None:
    lines, module = fan(spread=0.25), renderer().train()
    growth = []
    for mask in (1.0, 0.0):
        ball = Ball(0.5)
        opacity = seen(module, ball, masked(lines, mask)).opacity.clamp(1e-6, 1 - 1e-6)
        torch.nn.functional.binary_cross_entropy(opacity, torch.full_like(opacity, mask)).backward()
        growth.append(-ball.radius.grad.item())
    # Rays that ought to hit let the ball grow, rays that ought not let it shrink.
    assert growth[0] > 0 > growth[1]


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("node", [SMALL, HASHED], ids=lambda node: node["name"])
def test_no_rays_give_no_pixels(node: dict[str, Any], is_training: bool) -> None:
    rendered = seen(renderer().train(is_training), function(node), masked(fan(0), 1.0))
    assert rendered.color.shape == (0, 3) and rendered.opacity.shape == (0,) and rendered.normal.shape == (0, 3)


def test_every_ray_sees_the_scene_of_its_code() -> None:
    module, ball, lines = renderer().train(), Ball(), masked(fan(40), 1.0)
    code = 0.2 * torch.rand(40, 1)
    together = seen(module, ball, lines, Context(code))
    for row in range(0, 40, 7):
        one = slice(row, row + 1)
        alone = seen(module, ball, lines[one], Context(code[one]))
        assert torch.allclose(alone.color, together.color[one], atol=1e-5)
        assert torch.allclose(alone.depth, together.depth[one], atol=1e-4)


def test_large_searches_are_asked_in_pieces_and_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    field, module = function(SMALL), renderer().eval()
    lines = fan(60)
    whole = seen(module, field, lines)
    asked = []
    ask = field.distance
    monkeypatch.setattr(field, "distance", lambda points, context: asked.append(len(points)) or ask(points, context))
    monkeypatch.setattr(sdf_renderer, "_PIECE", 1000)
    pieces = seen(module, field, lines)
    assert max(asked) <= 1000 < whole.n_samples
    assert torch.allclose(whole.color, pieces.color, atol=1e-6) and whole.n_samples == pieces.n_samples


@pytest.mark.parametrize("node", [SMALL, HASHED], ids=lambda node: node["name"])
def test_chunks_of_an_image_are_the_image(node: dict[str, Any]) -> None:
    whole, parts = model(node, ray_chunk=1000).eval(), model(node, ray_chunk=12).eval()
    parts.load_state_dict(whole.state_dict())
    lines = fan(30)
    a, b = whole.render(lines), parts.render(lines)
    for key in ("color", "opacity", "depth", "normal"):
        assert torch.allclose(getattr(a, key), getattr(b, key), atol=1e-5)


@pytest.mark.parametrize("node", [SMALL, HASHED], ids=lambda node: node["name"])
def test_a_step_moves_every_parameter(node: dict[str, Any]) -> None:
    module = model(node).train()
    with torch.no_grad():
        for parameter in module.parameters():
            # The start as a sphere does without some of the inputs.
            parameter += 0.01 * torch.randn_like(parameter)
    lines = masked(fan(60), torch.arange(60) % 2.0)
    rendered = module(lines)
    loss = rendered.color.square().sum() + rendered.opacity.sum() + (rendered.gradient.norm(dim=1) - 1).square().sum()
    loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert rendered.n_samples > 60


def test_what_the_renderer_lacks_or_does_not_use_is_said() -> None:
    with pytest.raises(ConfigError, match="learns from masks"):
        model(SMALL).train()(fan())
    with pytest.raises(ConfigError, match="64 points a ray, which have no effect with the renderer sdf"):
        model(SMALL, ray_sampler={"name": "adaptive"}).eval()(fan())
    with pytest.raises(ConfigError, match="asks for a DistanceFunction, but NerfMLP"):
        model({"name": "nerf-mlp"})
    with pytest.raises(ConfigError, match="model.renderer.bg_color has 2 numbers; expected 1 or 3"):
        renderer(bg_color=[0.1, 0.2])


@pytest.mark.parametrize("node", [SMALL, HASHED], ids=lambda node: node["name"])
def test_the_mesh_is_the_zero_level_coloured_as_seen_along_its_normals(node: dict[str, Any]) -> None:
    module = model(node).eval()
    assert module.is_distance and module.isosurface is not None
    mesh = extract_surface(module.level, module.radius, 32, is_distance=True)
    sdf = module.level(mesh.vertices)
    assert sdf.abs().max() < 0.01
    assert mesh.vertices.norm(dim=1).mean() == pytest.approx(0.6 if node is SMALL else 0.5, abs=0.1)
    color = module.surface_color(mesh.vertices, mesh.normals)
    assert color.shape == mesh.vertices.shape and ((color >= 0) & (color <= 1)).all()
    # A ray that comes down on a vertex sees the same.
    row = torch.zeros(20, dtype=torch.int64)
    vertices, normals = mesh.vertices[:20], mesh.normals[:20]
    lines = Rays(vertices + 0.2 * normals, -normals, torch.zeros(20, 3), row, row[:, None].expand(-1, 2))
    assert torch.allclose(module.render(lines).color, color[:20], atol=0.02)


def test_a_threshold_moves_the_mesh() -> None:
    module = model({**SMALL, "isosurface": {"threshold": 0.1}}).eval()
    points = torch.randn(10, 3)
    assert torch.allclose(module.level(points), module.finest.distance(points, NOTHING) - 0.1)
    assert isinstance(function(HASHED), VolumeDistance)
