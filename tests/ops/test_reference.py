"""The definitions, held against finite differences, double backward and what the mathematics says."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from models import ops
from models.ops import GridLayout, reference
from tests.ops.cases import FieldCase, assert_close, gradients, leaves, points_inside_cells

CASES = [
    FieldCase(3, 2, (8,), "softplus"),
    FieldCase(2, 1, (6, 7), "softplus", has_biases=False, include_xyz=False),
    FieldCase(4, 2, (8, 8, 5), "softplus", n_active=2),
    FieldCase(2, 4, (8, 8), "relu"),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_a_grid_of_ones_encodes_every_point_as_one_with_no_slope():
    layout = GridLayout(6, 2, 9, 3, 1.6)
    edge = torch.tensor([0.0, 1.0, 0.5, -3.0, 7.0])
    x = torch.cartesian_prod(edge, edge, edge).t().double()
    y, jacobian = reference.encode_jacobian(x, torch.ones(layout.n_entries, 2).double(), layout, 6)
    assert_close(y, torch.ones_like(y), 1e-14)
    assert jacobian.abs().max() < 1e-12


def test_a_dense_level_reproduces_a_linear_function_and_its_slope():
    layout = GridLayout(1, 1, 12, 9, 1.0)
    size, scale = layout.resolutions[0], layout.scales[0]
    # Vertex i of an axis lies where x * scale + 0.5 = i.
    axis = (torch.arange(size).double() - 0.5) / scale
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    table = torch.zeros(layout.n_entries, 1).double()
    table[: size**3, 0] = (2 * x - 3 * y + 0.5 * z).flatten()
    points = torch.rand(3, 50).double()
    features, jacobian = reference.encode_jacobian(points, table, layout, 1)
    assert_close(features[0], 2 * points[0] - 3 * points[1] + 0.5 * points[2], 1e-12)
    assert_close(jacobian[0], torch.tensor([2, -3, 0.5]).double()[:, None].expand(3, 50), 1e-12)


def test_levels_lie_one_after_the_other_and_share_entries_only_when_they_must():
    layout = GridLayout(8, 2, 12, 8, 1.5)
    sizes = [after - before for before, after in zip(layout.offsets, layout.offsets[1:], strict=False)]
    for size, resolution, is_dense in zip(sizes, layout.resolutions, layout.is_dense, strict=True):
        assert size % 8 == 0
        assert size == (-(-(resolution**3) // 8) * 8 if is_dense else 2**12)
    assert layout.is_dense == (True, True, False, False, False, False, False, False)  # 9^3, 13^3, 19^3 > 4096
    assert layout.n_entries == sum(sizes)


@pytest.mark.parametrize("change", [{"n_levels": 0}, {"log2_hashmap_size": 40}, {"per_level_scale": 4.0}])
def test_an_impossible_layout_is_refused(change):
    with pytest.raises(ValueError, match="hash grid: .*expected"):
        GridLayout(
            **{"n_levels": 16, "n_features": 2, "log2_hashmap_size": 19, "base_resolution": 16}
            | {"per_level_scale": 1.4}
            | change
        )


def test_silent_levels_are_zero_and_take_no_gradient():
    layout = GridLayout(4, 2, 8, 4, 1.5)
    table = torch.rand(layout.n_entries, 2).double().requires_grad_()
    y = reference.encode(torch.rand(3, 20).double(), table, layout, 2)
    y.sum().backward()
    assert y[4:].abs().max() == 0 and y[:4].abs().min() > 0
    assert table.grad[layout.offsets[2] :].abs().max() == 0


def test_the_jacobian_is_the_derivative_of_the_features():
    layout = GridLayout(3, 2, 8, 4, 1.7)
    table = torch.rand(layout.n_entries, 2).double()
    x = torch.cat([points_inside_cells(20, layout), torch.tensor([[-0.5], [0.3], [1.5]])], 1).double().requires_grad_()
    y, jacobian = reference.encode_jacobian(x, table, layout, 3)
    for row in range(6):
        (slope,) = torch.autograd.grad(y[row].sum(), x, retain_graph=True)
        assert_close(jacobian[row], slope, 1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gradient_of_a_distance_field_is_what_autograd_finds(case):
    layout = case.layout()
    table, weights, biases = case.parameters()
    n_active = case.levels if case.n_active is None else case.n_active
    x = points_inside_cells(30, layout).double().requires_grad_()
    options = weights, biases, case.activation, n_active, case.include_xyz
    expected = reference.field(x, table, layout, *options)
    (slope,) = torch.autograd.grad(expected[0].sum(), x)
    outputs, gradient = reference.sdf_field(x, table, layout, *options)
    assert_close(outputs, expected, 1e-14)
    assert_close(gradient, slope, 1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_through_the_closed_form_equals_double_backward(case):
    layout = case.layout()
    n_active = case.levels if case.n_active is None else case.n_active
    table, weights, biases = case.parameters()
    x, d_outputs, d_gradient = points_inside_cells(30, layout).double(), torch.randn(5, 30), torch.randn(3, 30)
    results = []
    for is_closed_form in (True, False):
        table_, *rest = parameters = leaves([table, *weights, *biases], torch.float64)
        options = rest[: len(weights)], rest[len(weights) :], case.activation, n_active, case.include_xyz
        position = x.clone().requires_grad_()
        if is_closed_form:
            outputs, gradient = reference.sdf_field(position, table_, layout, *options)
        else:
            outputs = reference.field(position, table_, layout, *options)
            (gradient,) = torch.autograd.grad(outputs[0].sum(), position, create_graph=True)
        torch.autograd.backward([outputs, gradient], [d_outputs.double(), d_gradient.double()])
        results.append([position.grad, *gradients(parameters)])
    for closed, double in zip(*results, strict=True):
        assert_close(closed, double, 1e-11)


def test_the_references_have_the_gradients_that_finite_differences_give():
    layout = GridLayout(2, 2, 6, 3, 1.5)
    x = points_inside_cells(4, layout).double().requires_grad_()
    table = torch.rand(layout.n_entries, 2).double().requires_grad_()
    w1, w2 = (torch.randn(4, 7).double().requires_grad_(), torch.randn(3, 4).double().requires_grad_())
    bias = torch.randn(4).double().requires_grad_()

    def sdf(x, table, w1, bias, w2):
        # A gentler slope than the sharp softplus has keeps finite differences accurate.
        return reference.sdf_field(x, table, layout, [0.05 * w1, w2], [0.05 * bias, None], "softplus", 2, True)

    assert gradcheck(sdf, (x, table, w1, bias, w2), atol=1e-4)
    alpha, values = torch.rand(6).double().requires_grad_(), torch.randn(2, 6).double().requires_grad_()
    offsets = torch.tensor([0, 4, 4, 6])
    assert gradcheck(lambda a, v: reference.composite(a, v, offsets), (alpha, values))
    t, width = torch.rand(6).double(), torch.rand(6).double()
    assert gradcheck(lambda w: reference.distortion(w, t, width, offsets), (alpha,))
    sdf_, slope = torch.randn(5).double().requires_grad_(), -torch.rand(5).double()
    sharpness = torch.tensor(3.0).double().requires_grad_()
    assert gradcheck(reference.neus_alpha, (sdf_, slope.requires_grad_(), width[:5], sharpness))
    assert gradcheck(lambda d: reference.spherical_harmonics(d, 4), (torch.randn(3, 3).double().requires_grad_(),))


def test_spherical_harmonics_are_orthonormal():
    # Gauss-Legendre in z times equal angles integrates polynomials of this degree exactly.
    n = 12
    index = torch.arange(1, n).double()
    beta = index / (4 * index**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beta, 1) + torch.diag(beta, -1))
    weights = 2 * vectors[0] ** 2
    phi = torch.arange(2 * n).double() * (math.pi / n)
    z, angle = torch.meshgrid(nodes, phi, indexing="ij")
    ring = (1 - z * z).sqrt()
    d = torch.stack([ring * angle.cos(), ring * angle.sin(), z]).reshape(3, -1)
    area = (weights[:, None] * (math.pi / n)).expand(n, 2 * n).reshape(-1)
    y = reference.spherical_harmonics(d, 4)
    assert_close((y * area) @ y.t(), torch.eye(16).double(), 1e-12)


def test_spherical_harmonics_begin_with_the_axes_in_the_order_y_z_x():
    y = reference.spherical_harmonics(torch.eye(3).double(), 2)
    assert_close(y[1:], 0.48860251 * torch.tensor([[0, -1, 0], [0, 0, 1], [-1, 0, 0]]).double(), 1e-7)


def test_neus_opacity_of_a_wall_is_the_share_of_the_sigmoid_crossed():
    # Nearly all of the sigmoid lies within the interval: the wall is opaque; far in front of it, nothing is.
    sdf, slope, width = torch.tensor([0.0, 1.0]), torch.tensor([-1.0, -1.0]), torch.tensor([0.5, 0.1])
    alpha = ops.neus_alpha(sdf.double(), slope.double(), width.double(), torch.tensor(200.0).double(), "reference")
    assert alpha[0] > 0.999 and alpha[1] < 1.1e-5
