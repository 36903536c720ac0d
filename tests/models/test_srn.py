"""Laws of scene representation networks and of the renderer that marches through them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import models
from models.fields.implicit import Sizes
from models.fields.srn import SRN, PixelConfig, RaymarchConfig
from models.fields.srn_hypernet import HypernetConfig, SRNHyperNet, distinct
from models.implicit import ImplicitModel
from utils.config import parse
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays

MARCH = {"n_hidden_units": 12, "n_layers": 1, "out_features": 10}
PIXEL = {"n_hidden_units": 12, "n_layers": 1, "n_hidden_units_color": 8}
SRN_PART = {"name": "srn", "raymarch_function": MARCH, "pixel_generator": PIXEL}
HYPER_PART = {"name": "srn-hypernet", "hypernet": MARCH | {"n_hidden_units_hypernet": 8}, "pixel_generator": PIXEL}
CODES = {"name": "sequence-autodecoder", "encoding_dim": 4, "n_instances": 3}
RENDERER = {"name": "lstm", "num_raymarch_steps": 3, "n_feature_channels": 10, "init_depth": 2.0}


def model(function: dict[str, Any] = SRN_PART, encoder: dict[str, Any] | None = CODES, **options: Any) -> ImplicitModel:
    torch.manual_seed(0)
    tree = {
        "ray_sampler": {"name": "near-far", "n_pts_per_ray_training": 1, "n_pts_per_ray_evaluation": 1},
        "implicit_function": function,
        "renderer": RENDERER | options.pop("renderer", {}),
        "global_encoder": encoder,
    }
    made = models.make(parse(models.get("generic").Config, tree | options, "model"))
    # Steps that differ between rays.
    made.renderer.step.weight.data.mul_(100)
    return made


def rays(n: int, n_scenes: int = 3) -> Rays:
    generator = torch.Generator().manual_seed(1)
    direction = F.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    view = torch.randint(5, (n,), generator=generator)
    pixel = torch.zeros(n, 2, dtype=torch.int64)
    return Rays(-2 * direction, direction, torch.rand(n, 3, generator=generator), view, pixel, scene=view % n_scenes)


@pytest.mark.parametrize("function", [SRN_PART, HYPER_PART], ids=["srn", "srn-hypernet"])
def test_chunks_show_what_the_whole_shows(function: dict[str, Any]) -> None:
    asked = rays(23)
    whole = model(function, ray_chunk=100).eval().render(asked)
    parts = model(function, ray_chunk=7).eval().render(asked)
    for name in ("color", "opacity", "depth"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize("function", [SRN_PART, HYPER_PART], ids=["srn", "srn-hypernet"])
@pytest.mark.parametrize("n", [0, 1])
def test_any_number_of_rays_will_do(function: dict[str, Any], n: int) -> None:
    rendered = model(function)(rays(n))
    assert rendered.color.shape == (n, 3) and rendered.depth.shape == (n,)
    (rendered.color.sum() + rendered.opacity.sum()).backward()
    assert rendered.n_samples == 4 * n


def test_noise_moves_rays_in_training_only() -> None:
    asked, made = rays(6), model(renderer={"init_depth_noise_std": 0.1})
    assert not torch.equal(made(asked).color, made(asked).color)
    made.eval()
    assert torch.equal(made(asked).color, made(asked).color)


def test_before_training_rays_walk_the_same_way() -> None:
    made = model(renderer={"init_depth": 7.0}).eval()
    made.renderer.step.weight.data.zero_()
    torch.testing.assert_close(made(rays(5)).depth, torch.full((5,), 0.1 + 7.0))


def test_opacity_lays_the_picture_over_the_backdrop() -> None:
    asked, made = rays(5), model().eval()
    on_backdrop, on_black = made(asked), model(renderer={"bg_color": [0.0]}).eval()(asked)
    behind = (1 - on_black.opacity[:, None]) * asked.backdrop
    torch.testing.assert_close(on_backdrop.color, on_black.color + behind)


def test_gradients_of_the_state_are_bounded() -> None:
    def gradient(scale: float) -> Tensor:
        made = model(renderer={"init_depth_noise_std": 0.0})
        (scale * made(rays(5)).depth.sum()).backward()
        return made.renderer.lstm.weight_ih.grad

    torch.testing.assert_close(gradient(1e8), gradient(1e7))
    assert not torch.allclose(gradient(1.0), gradient(0.5))


def test_the_code_is_laid_beside_the_position() -> None:
    torch.manual_seed(0)
    config = SRN.Config(RaymarchConfig(**MARCH), PixelConfig(**PIXEL))
    function = SRN(config, Sizes(n_code=4))
    asked, t, code = rays(5), torch.rand(5, 2), torch.randn(5, 4)
    beside = [function.position(RayPoints(t).positions(asked)), code[:, None].expand(5, 2, 4)]
    expected = function.raymarch_function(torch.cat(beside, dim=-1))
    torch.testing.assert_close(function(asked, Context(code))(RayPoints(t)), expected)


def hypernet() -> SRNHyperNet:
    torch.manual_seed(0)
    config = SRNHyperNet.Config(HypernetConfig(**HYPER_PART["hypernet"]), PixelConfig(**PIXEL))
    return SRNHyperNet(config, Sizes(n_code=4))


def test_every_ray_asks_the_network_of_its_own_code() -> None:
    function, asked, t = hypernet(), rays(6), torch.rand(6, 2)
    table = torch.randn(3, 4, requires_grad=True)
    scene = torch.tensor([2, 0, 2, 1, 0, 2])
    seen = function(asked, Context(table[scene]))(RayPoints(t))

    def alone(ray: int) -> Tensor:
        x = function.position(RayPoints(t[ray : ray + 1]).positions(asked[ray : ray + 1]))[0]
        for predict, n in zip(function.hypernet, function.widths[1:], strict=True):
            numbers = predict(table[scene[ray]])
            weight, bias = numbers[: n * x.shape[1]].view(n, x.shape[1]), numbers[n * x.shape[1] :]
            x = torch.relu(F.layer_norm(x @ weight.T + bias, [n]))
        return x

    expected = torch.stack([alone(ray) for ray in range(6)])
    torch.testing.assert_close(seen, expected)
    # Gradients of codes, too, though each network is predicted once.
    (ours,) = torch.autograd.grad(seen.square().sum(), table, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected.square().sum(), table)
    torch.testing.assert_close(ours, theirs)


def test_the_feature_is_as_long_as_asked_for() -> None:
    asked = rays(2)
    assert hypernet()(asked, Context(torch.zeros(2, 4)))(RayPoints(torch.ones(2, 1))).shape == (2, 1, 10)


def test_distinct_codes_stand_once() -> None:
    code = torch.tensor([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [1.0, 3.0]])
    once, order, counts = distinct(code)
    assert once.tolist() == [[0.0, 5.0], [1.0, 2.0], [1.0, 3.0]]
    assert order.tolist() == [1, 0, 2, 3] and counts == [1, 2, 1]


def test_a_scene_learns_nothing_from_rays_of_another() -> None:
    made = model(HYPER_PART)
    asked = rays(9)
    rendered = made(asked)
    rendered.color[asked.scene == 1].sum().backward()
    moved = made.global_encoder.code.grad.abs().sum(-1) > 0
    assert moved.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"renderer": {"n_feature_channels": 11}}, "n_feature_channels is 11, but the implicit function's .* is 10"),
        ({"ray_sampler": {"name": "near-far"}}, "gives 64 points a ray, but lstm begins at one"),
        ({"function": HYPER_PART, "encoder": None}, "srn-hypernet predicts its weights from a code"),
        ({"renderer": {"num_raymarch_steps": 0}}, "num_raymarch_steps is 0; expected 1 or more"),
        ({"renderer": {"bg_color": [1.0, 0.0]}}, "model.renderer.bg_color has 2 numbers; expected 1 or 3"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model(**options)(rays(2))
