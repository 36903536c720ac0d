"""The NeRF network against recorded numbers of the published code."""

import torch

from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import Sizes
from models.fields.nerf_mlp import NerfMLP
from models.fields.point_embedding import cone_gaussians
from tests.parity.reference import assert_agrees, group, load, put, rays_of
from utils.types import Context

NAMES = {
    "trunk.": "xyz_encoder.mlp.",
    "heads.intermediate": "intermediate_linear",
    "heads.density": "density_layer",
    "heads.color_hidden": "color_layer.0",
    "heads.color.": "color_layer.2.",
}


def published(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Their trunk counts layers as `mlp.<l>.0`, ours as `trunk.<l>`."""
    return {
        key.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "mlp." in key else key: value
        for key, value in values.items()
    }


def network(n_code: int, values: dict[str, torch.Tensor], **options) -> NerfMLP:
    function = NerfMLP(NerfMLP.Config(**options), Sizes(3, n_code))
    put(function, published(values), NAMES)
    return function


def test_harmonic_embedding() -> None:
    data = load("harmonic_embedding")
    x = data["x"]
    assert_agrees(HarmonicEmbedding(6)(x), data["n6"])
    assert_agrees(HarmonicEmbedding(6)(x, data["diag_cov"]), data["n6_cov"])
    assert_agrees(HarmonicEmbedding(4, append_input=False)(x), data["n4_noinput"])
    assert_agrees(HarmonicEmbedding(5, is_logarithmic=False)(x), data["n5_linear"])
    assert_agrees(HarmonicEmbedding(0)(x), data["n0"])


def test_network_with_code_and_its_gradients() -> None:
    data = load("nerf_mlp")
    function = network(
        5,
        group(data, "sd"),
        n_harmonic_functions_xyz=4,
        n_harmonic_functions_dir=2,
        n_hidden_neurons_xyz=24,
        n_hidden_neurons_dir=12,
        n_layers_xyz=4,
        append_xyz=[2],
    )
    rays, points = rays_of(data)
    assert rays.scene is not None
    output = function(rays, points, Context(data["global_code"][rays.scene]))
    assert_agrees(output.density, data["densities"])
    assert_agrees(output.feature, data["colors"])
    ((output.feature * data["loss_weights"].view_as(output.feature)).sum() + output.density.sum()).backward()
    gradients = published(group(data, "grad"))
    for name, parameter in function.named_parameters():
        prefix = next(prefix for prefix in NAMES if name.startswith(prefix))
        assert_agrees(parameter.grad, gradients[NAMES[prefix] + name.removeprefix(prefix)])


def test_network_on_cones() -> None:
    data = load("nerf_ipe")
    function = network(
        0,
        group(data, "sd"),
        n_harmonic_functions_xyz=4,
        n_harmonic_functions_dir=2,
        n_hidden_neurons_xyz=16,
        n_hidden_neurons_dir=8,
        n_layers_xyz=2,
        append_xyz=[],
        use_integrated_positional_encoding=True,
    )
    rays, points = rays_of(data)
    output = function(rays, points, Context())
    assert_agrees(output.density, data["densities"])
    assert_agrees(output.feature, data["colors"])


def test_gaussians_of_cones() -> None:
    data = load("ray_samplers")
    rays, points = rays_of(data, "cone_")
    mean, variance = cone_gaussians(rays, points)
    assert_agrees(mean, data["cone_gauss_mean"])
    assert_agrees(variance, data["cone_gauss_diagcov"])
