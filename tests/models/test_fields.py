"""Laws of contractions, encodings, networks and fields."""

import math

import pytest
import torch

from models import encodings, geometries, networks, textures
from models.fields.activations import get_activation, trunc_exp
from models.fields.encodings import HashGrid, ProgressiveBandHashGrid, VanillaFrequency
from models.fields.mlp import MLP
from models.fields.sdf import VolumeSDF
from utils.config import parse
from utils.contraction import contract, expand
from utils.registry import ConfigError

GRID = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 12, "per_level_scale": 1.5, "include_xyz": True}
SPHERE = {"otype": "VanillaMLP", "n_neurons": 64, "sphere_init": True, "weight_norm": True}


def sdf_field(radius: float = 1.0, **options) -> VolumeSDF:
    node = {"radius": radius, "xyz_encoding_config": GRID, "mlp_network_config": SPHERE, **options}
    return geometries.make(parse(VolumeSDF.Config, node), "box")


@pytest.mark.parametrize("kind", ["box", "sphere"])
def test_expand_undoes_contract(kind):
    torch.manual_seed(0)
    points = torch.randn(500, 3, dtype=torch.float64) * (0.4 if kind == "box" else 3)
    assert torch.allclose(expand(contract(points, 1.3, kind), 1.3, kind), points, rtol=1e-9)


def test_the_sphere_contraction_keeps_the_ball_in_the_central_half_and_all_space_in_the_cube():
    on_ball = torch.tensor([[1.3, 0, 0], [0, -1.3, 0]])
    assert torch.allclose(contract(on_ball, 1.3, "sphere"), torch.tensor([[0.75, 0.5, 0.5], [0.5, 0.25, 0.5]]))
    far = contract(torch.randn(100, 3) * 1e6, 1.3, "sphere")
    assert (far - 0.5).norm(dim=-1).max() <= 0.5 + 1e-6


def test_the_gradient_of_the_sphere_contraction_is_finite_at_the_centre():
    origin = torch.zeros(1, 3, requires_grad=True)
    contract(origin, 1.0, "sphere").sum().backward()
    assert origin.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [("none", -2.0, -2.0), ("Sigmoid", 0.0, 0.5), ("scale4", 5.0, 1.0), ("scale4", 1.0, 0.25), ("clamp2", 3.0, 2.0)]
    + [("mul3", 2.0, 6.0), ("+1.5", 1.0, 2.5), ("-1", 0.0, -1.0), ("trunc_exp", 1.0, math.e), ("ReLU", -1.0, 0.0)]
    + [("lin2srgb", 0.5, 0.735357), ("softplus", 0.0, math.log(2)), ("exp", 0.0, 1.0)],
)
def test_activations_by_name(name, x, expected):
    assert get_activation(name)(torch.tensor(x)).item() == pytest.approx(expected, rel=1e-5)


def test_an_unknown_activation_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'sigmoid'"):
        get_activation("sigmod")


def test_trunc_exp_stops_its_gradient_from_exploding():
    x = torch.tensor([1.0, 30.0], requires_grad=True)
    trunc_exp(x).sum().backward()
    assert torch.allclose(x.grad, torch.tensor([math.e, math.exp(15)]))


def test_a_progressive_grid_opens_one_level_at_a_time_and_never_reads_the_rest():
    config = ProgressiveBandHashGrid.Config(
        n_levels=6, log2_hashmap_size=10, start_level=2, start_step=5, update_steps=10
    )
    grid = encodings.make(config)
    x = torch.rand(50, 3)
    for step, level in [(0, 2), (14, 2), (15, 3), (25, 4), (1000, 6)]:
        grid.update(step)
        encoded = grid(x)
        assert (encoded[:, : 2 * level] != 0).all(dim=0).all()
        assert (encoded[:, 2 * level :] == 0).all()


def test_frequency_bands_fade_in():
    encoding = encodings.make(VanillaFrequency.Config(n_frequencies=2, n_masking_step=100), 1)
    x = torch.tensor([[0.3]])
    encoding.update(25)  # shows half of the first band: (1 - cos(pi / 2)) / 2
    assert torch.allclose(encoding(x), torch.tensor([[math.sin(0.3) / 2, math.cos(0.3) / 2, 0, 0]]))
    encoding.update(100)
    assert torch.allclose(encoding(x), torch.tensor([[math.sin(0.3), math.cos(0.3), math.sin(0.6), math.cos(0.6)]]))


def test_frequency_has_a_pi_that_vanilla_frequency_has_not():
    x = torch.rand(5, 3)
    vanilla = encodings.make(parse(encodings.get("VanillaFrequency").Config, {"n_frequencies": 3}), 3)
    frequency = encodings.make(parse(encodings.get("Frequency").Config, {"n_frequencies": 3}), 3)
    assert torch.allclose(frequency(x), vanilla(math.pi * x), atol=1e-5)


def test_include_xyz_puts_coordinates_first():
    x = torch.rand(7, 3)
    encoded = encodings.make(parse(HashGrid.Config, {k: v for k, v in GRID.items() if k != "otype"}))(x)
    assert torch.equal(encoded[:, :3], 2 * x - 1)


@pytest.mark.parametrize("otype", ["VanillaMLP", "FullyFusedMLP"])
def test_only_vanilla_networks_have_biases(otype):
    network = networks.make(MLP.Config(otype=otype, n_hidden_layers=2), 5, 3)
    assert len(network.biases) == (3 if otype == "VanillaMLP" else 0)
    assert network(torch.rand(4, 2), torch.rand(4, 3)).shape == (4, 3)


def test_weight_normalisation_changes_the_parameters_but_not_the_function():
    torch.manual_seed(1)
    plain = networks.make(MLP.Config(), 4, 2)
    torch.manual_seed(1)
    normed = networks.make(MLP.Config(weight_norm=True), 4, 2)
    x = torch.rand(9, 4)
    assert torch.allclose(plain(x), normed(x), atol=1e-6)
    assert len(list(normed.parameters())) == len(list(plain.parameters())) + 2


def test_sphere_initialisation_is_about_the_distance_to_a_sphere():
    torch.manual_seed(0)
    field = sdf_field(1.5)
    points = torch.randn(2000, 3)
    points = points / points.norm(dim=-1, keepdim=True) * torch.rand(2000, 1) * 1.4
    expected = points.norm(dim=-1) / 1.5 - 0.5
    error = field.sdf(points) - expected
    assert error.square().mean().sqrt() < 0.2
    # Distances are in units of the radius at first; the eikonal loss stretches them.
    assert field(points).gradient.norm(dim=-1).mean().item() == pytest.approx(1 / 1.5, rel=0.35)


@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_analytic_gradients_are_those_of_finite_differences(radius):
    torch.manual_seed(0)
    analytic = sdf_field(radius)
    with torch.no_grad():
        analytic.network.encoding.table.uniform_(-0.05, 0.05)
        analytic.network.network.directions[0].normal_(0, 0.2)
    numeric = sdf_field(radius, grad_type="finite_difference", finite_difference_eps=1e-3 * radius)
    numeric.load_state_dict(analytic.state_dict())
    points = (torch.rand(300, 3) - 0.5) * 1.8 * radius
    a, b = analytic(points), numeric(points)
    assert torch.allclose(a.sdf, b.sdf, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(a.gradient, b.gradient, dim=-1)
    assert cosine.median() > 0.999
    assert (a.gradient - b.gradient).norm(dim=-1).median() < 0.02 * a.gradient.norm(dim=-1).median()


def test_finite_differences_are_right_at_the_faces_of_the_box():
    torch.manual_seed(0)
    field = sdf_field(1.0, grad_type="finite_difference", finite_difference_eps=0.01)
    face = torch.tensor([[1.0, 0.1, 0.2], [-1.0, 0.3, 0.0]])
    inside = face * torch.tensor([[0.98, 1.0, 1.0]])
    output = field(face)
    assert torch.allclose(output.gradient, field(inside).gradient, atol=0.1)
    assert torch.equal(output.laplacian, torch.zeros(2)) or output.laplacian.abs().max() < 1e3


def test_the_laplacian_of_a_sphere_distance_is_two_over_the_radius():
    torch.manual_seed(0)
    field = sdf_field(1.0, grad_type="finite_difference", finite_difference_eps=0.05)
    field.sdf = lambda points: points.norm(dim=-1) - 0.5  # type: ignore[method-assign]
    field.network.forward = lambda x, n_outputs=None: (2 * x - 1).norm(dim=-1, keepdim=True) - 0.5  # type: ignore
    points = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.3, 0.4]])
    output = field(points)
    assert torch.allclose(output.gradient, points / 0.5, atol=1e-2)
    assert torch.allclose(output.laplacian, torch.full((2,), 4.0), rtol=0.02)


def test_the_progressive_tap_distance_is_the_finest_active_cell():
    node = {
        "radius": 1.0,
        "grad_type": "finite_difference",
        "finite_difference_eps": "progressive",
        "xyz_encoding_config": {
            "otype": "ProgressiveBandHashGrid",
            "base_resolution": 32,
            "per_level_scale": 1.3195079107728942,
            "log2_hashmap_size": 8,
        },
    }
    field = geometries.make(parse(VolumeSDF.Config, node), "box")
    for step, expected in [(0, 0.027205), (1000, 0.020617), (4000, 0.008974), (8000, 0.002960), (12000, 0.000977)]:
        field.update(step)
        assert field.tap_distance == pytest.approx(expected, rel=1e-3)


def test_progressive_taps_need_a_progressive_grid():
    with pytest.raises(ConfigError, match="ProgressiveBandHashGrid"):
        parse(VolumeSDF.Config, {"finite_difference_eps": "progressive"}, "model.geometry")


def test_a_frequency_field_has_gradients_and_their_gradients():
    torch.manual_seed(0)
    node = {
        "xyz_encoding_config": {"otype": "VanillaFrequency", "n_frequencies": 3, "include_xyz": True},
        "mlp_network_config": SPHERE,
    }
    field = geometries.make(parse(VolumeSDF.Config, node), "box")
    points = torch.rand(20, 3) - 0.5
    output = field(points)
    (output.gradient.norm(dim=-1) - 1).square().mean().backward()
    for direction in field.network.network.directions:
        assert direction.grad.isfinite().all() and direction.grad.abs().sum() > 0


def test_a_texture_without_view_sees_no_direction():
    texture = textures.make(
        parse(textures.get("volume-color").Config, {"input_feature_dim": 6, "color_activation": "sigmoid"})
    )
    feature, directions = torch.rand(5, 6), torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=-1)
    assert torch.equal(texture(feature, directions[0], directions[0]), texture(feature, directions[1]))


@pytest.mark.parametrize("name", ["HashGrid", "SphericalHarmonics"])
def test_encodings_of_space_refuse_other_dimensions(name):
    with pytest.raises(ConfigError, match="3 coordinates"):
        encodings.make(encodings.get(name).Config(), 2)


def test_mixed_precision_leaves_distances_alone():
    torch.manual_seed(0)
    grid, sphere = {**GRID, "backend": "reference"}, {**SPHERE, "backend": "reference"}
    field = sdf_field(1.0, xyz_encoding_config=grid, mlp_network_config=sphere)
    color = {"input_feature_dim": 13, "mlp_network_config": {"otype": "VanillaMLP", "backend": "reference"}}
    texture = textures.make(parse(textures.get("volume-color").Config, color))
    points = torch.rand(40, 3) - 0.5
    exact = field(points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = field(points)
        assert torch.equal(mixed.sdf, exact.sdf) and torch.equal(mixed.gradient, exact.gradient)
        assert torch.allclose(field.sdf(points), exact.sdf, atol=1e-6)
        shade = texture(exact.feature, points)
    assert shade.dtype == torch.float32
    # The colour network did run in half precision.
    assert not torch.equal(shade, texture(exact.feature, points))
