"""Scene representation networks, their hypernetwork and the LSTM renderer against recorded numbers of the published
code, gradients included."""

import torch
from torch import nn

from models.fields.implicit import Sizes
from models.fields.srn import SRN, PixelConfig, RaymarchConfig
from models.fields.srn_hypernet import HypernetConfig, SRNHyperNet
from models.rendering.lstm import LSTMRenderer
from tests.parity.reference import Arrays, assert_agrees, group, load, put, rays_of
from utils.types import Context

NAMES = {
    "raymarch_function": "raymarch_function",
    "hypernet": "hypernet",
    "pixel_generator.trunk": "pixel_generator",
    "pixel_generator.density": "pixel_generator._density_layer",
    "pixel_generator.color_hidden": "pixel_generator._color_layer",
    "pixel_generator.color.": "pixel_generator._color_layer.3.",
}
LSTM_NAMES = {"lstm.": "_lstm.", "step.": "_out_layer."}


def published(values: Arrays) -> Arrays:
    """Their networks hold their layers, and these their parts, in a `net`; predictors lie deeper still."""
    nested = ("._net.net", ".net", "._hypernet.layers", ".hyper_linear.hypo_params")
    renamed = {}
    for key, value in values.items():
        for part in nested:
            key = key.replace(part, "")
        renamed[key] = value
    return renamed


def assert_gradients_agree(module: nn.Module, values: Arrays, names: dict[str, str]) -> None:
    for name, parameter in module.named_parameters():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        assert_agrees(parameter.grad, values[names[prefix] + name.removeprefix(prefix)])


def srn(data: Arrays) -> SRN:
    march = RaymarchConfig(n_harmonic_functions=2, n_hidden_units=12, n_layers=1, out_features=10)
    pixel = PixelConfig(n_harmonic_functions=2, n_hidden_units=12, n_hidden_units_color=8, n_layers=1)
    function = SRN(SRN.Config(march, pixel), Sizes(3, n_code=3))
    put(function, published(group(data, "sd")), NAMES)
    return function


def renderer(data: Arrays, bg_color: list[float] | None = None) -> LSTMRenderer:
    config = LSTMRenderer.Config(num_raymarch_steps=4, hidden_size=6, n_feature_channels=10, bg_color=bg_color)
    made = LSTMRenderer(config, Sizes(), radius=1.0).eval()
    put(made, group(data, "lstm_sd"), LSTM_NAMES)
    return made


def test_features_and_pixels() -> None:
    data = load("srn_lstm")
    rays, points = rays_of(data)
    function = srn(data)
    feature = function(rays, Context(data["global_code"][rays.view]))(points)
    assert_agrees(feature, data["raymarch_features"])
    logit, color = function.pixel(rays, feature[:, 0])
    assert_agrees(logit, data["raw_density"])
    assert_agrees(color, data["colors"])


def test_marched_rays_over_a_background() -> None:
    data = load("srn_lstm")
    rays, points = rays_of(data)
    rendered = renderer(data, [0.3, 0.6, 0.9])(rays, points, [srn(data)], Context(data["global_code"][rays.view]))
    assert_agrees(rendered.opacity, data["lstm_masks"])
    assert_agrees(rendered.depth, data["lstm_depths"])
    assert_agrees(rendered.color, data["lstm_bg_features"])


def test_gradients_of_marched_rays() -> None:
    data = load("srn_lstm")
    rays, points = rays_of(data)
    function, lstm = srn(data), renderer(data)
    rendered = lstm(rays, points, [function], Context(data["global_code"][rays.view]))
    # Theirs does not lay the picture over the background, which is black here.
    color = rendered.color / rendered.opacity[:, None]
    assert_agrees(color, data["lstm_features"])
    ((color * data["loss_weights"].view(-1, 3)).sum() + rendered.opacity.sum() + rendered.depth.sum()).backward()
    assert_gradients_agree(lstm, group(data, "lstm_grad"), LSTM_NAMES)
    assert_gradients_agree(function, published(group(data, "grad")), NAMES)


def hypernet(data: Arrays) -> SRNHyperNet:
    hyper = HypernetConfig(
        n_harmonic_functions=1, n_hidden_units=10, n_layers=1, n_hidden_units_hypernet=8, out_features=10
    )
    pixel = PixelConfig(n_harmonic_functions=1, n_hidden_units=10, n_hidden_units_color=8, n_layers=1)
    function = SRNHyperNet(SRNHyperNet.Config(hyper, pixel), Sizes(3, n_code=4))
    put(function, published(group(data, "sd")), NAMES)
    return function


def test_predicted_networks() -> None:
    data = load("srn_hypernet")
    rays, points = rays_of(data)
    function = hypernet(data)
    code = data["global_code"][rays.view]
    feature = function(rays, Context(code))(points)
    assert_agrees(feature, data["features"])
    # [D47]: theirs keeps the networks of the first code until it is told to forget them; nothing is kept here.
    assert_agrees(data["features_stale"], data["features"])
    assert_agrees(function(rays, Context(torch.zeros_like(code)))(points), data["features_zero_code"])
    logit, color = function.pixel(rays, feature[:, 0])
    assert_agrees(logit, data["raw_density"])
    assert_agrees(color, data["colors"])
