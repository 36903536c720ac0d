"""Every kernel of fields and networks against its float64 reference: values and all gradients."""

import pytest
import torch

from models import ops
from models.ops import GridLayout, native
from tests.ops.cases import FieldCase, assert_close, gradients, leaves, points_inside_cells

SIZES = [0, 1, 63, 64, 65, 1000]
CASES = [
    FieldCase(16, 2, (64,), "softplus", outputs=14),
    FieldCase(5, 4, (32, 19), "softplus", n_active=3),
    FieldCase(1, 8, (17, 8, 33), "softplus", include_xyz=False, outputs=1),
    FieldCase(5, 1, (64, 64), "relu", has_biases=False, outputs=64),
    FieldCase(16, 1, (16, 16, 16), "relu", n_active=0),
    FieldCase(5, 2, (128,), "relu", n_active=5, include_xyz=False),
    FieldCase(5, 2, (), "softplus", outputs=3),
]
TOLERANCE = 5e-5  # slopes of 100, and processors without fused multiply-adds


@pytest.fixture(autouse=True)
def kernels():
    torch.manual_seed(0)
    if native.obstacle():
        pytest.skip(f"no kernels to test: {native.obstacle()}")


def both(run):
    """Results of run(backend, dtype) by the kernels in float32 and by the reference in float64."""
    return zip(run("native", torch.float32), run("reference", torch.float64), strict=True)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("levels", "features", "n_active"), [(1, 1, None), (5, 2, 3), (16, 4, None), (5, 8, 0)])
def test_encoding(n, levels, features, n_active):
    layout = GridLayout(levels, features, 10, 4, 1.2)
    x, table = points_inside_cells(n, layout), torch.rand(layout.n_entries, features) - 0.5
    d_y = torch.randn(layout.n_outputs, n)

    def run(backend, dtype):
        jacobian = ops.encode_jacobian(x.to(dtype), table.to(dtype), layout, n_active, backend)
        point, entries = parameters = leaves([x, table], dtype)
        y = ops.encode(point, entries, layout, n_active, backend)
        if y.requires_grad:  # that of no level at all does not
            y.backward(d_y.to(dtype))
        return [*jacobian, y.detach(), *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_distance_fields_and_their_gradients(case, n):
    layout, x = case.layout(), points_inside_cells(n, case.layout())
    table, weights, biases = case.parameters()
    d_outputs, d_gradient = torch.randn(case.outputs, n), torch.randn(3, n)

    def run(backend, dtype):
        entries, *rest = parameters = leaves([table, *weights, *biases], dtype)
        options = rest[: len(weights)], rest[len(weights) :], case.activation, case.n_active, case.include_xyz
        outputs, gradient = ops.sdf_field(x.to(dtype), entries, layout, *options, backend=backend)
        torch.autograd.backward([outputs, gradient], [d_outputs.to(dtype), d_gradient.to(dtype)])
        return [outputs.detach(), gradient.detach(), *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fields(case, n):
    layout, x = case.layout(), points_inside_cells(n, case.layout())
    table, weights, biases = case.parameters()
    d_outputs = torch.randn(case.outputs, n)

    def run(backend, dtype):
        point, entries, *rest = parameters = leaves([x, table, *weights, *biases], dtype)
        options = rest[: len(weights)], rest[len(weights) :], case.activation, case.n_active, case.include_xyz
        outputs = ops.field(point, entries, layout, *options, backend=backend)
        outputs.backward(d_outputs.to(dtype))
        return [outputs.detach(), *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("widths", [(35, 64, 64, 3), (3, 1), (7, 128, 5, 5, 70, 9)], ids=str)
@pytest.mark.parametrize(("activation", "output"), [("relu", "sigmoid"), ("softplus", "relu"), ("relu", "none")])
def test_perceptrons(n, widths, activation, output):
    x, d_outputs = torch.randn(widths[0], n), torch.randn(widths[-1], n)
    weights = [torch.randn(b, a) / a**0.5 for a, b in zip(widths, widths[1:], strict=False)]
    biases = [None if b == 5 else torch.randn(b) for b in widths[1:]]

    def run(backend, dtype):
        point, *rest = parameters = leaves([x, *weights, *biases], dtype)
        outputs = ops.mlp(point, rest[: len(weights)], rest[len(weights) :], activation, output, backend)
        outputs.backward(d_outputs.to(dtype))
        return [outputs.detach(), *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize(("activation", "output", "widest"), [("softplus", "none", 0.8), ("relu", "sigmoid", 80.0)])
def test_activations_are_exact_to_rounding_however_small(activation, output, widest):
    # One neuron that takes its input as it is; two whose difference it is before a sigmoid.
    x = torch.linspace(-widest, widest, 4001)[None]
    first = torch.ones(1, 1) if activation == "softplus" else torch.tensor([[1.0], [-1.0]])
    weights, biases = [first, first.t()], [None, None]

    def run(backend, dtype):
        (point,) = leaves([x], dtype)
        y = ops.mlp(point, [w.to(dtype) for w in weights], biases, activation, output, backend)
        y.sum().backward()
        return y.detach(), point.grad

    # An exponent of 80 is rounded by 4e-6; slopes of a sigmoid come from its values: near 1 they have 1e-7.
    for (actual, expected), least in zip(both(run), [1e-37, 3e-7], strict=True):
        assert torch.allclose(actual.double(), expected, rtol=1e-5, atol=least)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("n", SIZES)
def test_spherical_harmonics(n, degree):
    d = torch.nn.functional.normalize(torch.randn(3, n), dim=0)
    for actual, expected in both(lambda backend, dtype: [ops.spherical_harmonics(d.to(dtype), degree, backend)]):
        assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize("n", [*SIZES, 5000])
@pytest.mark.parametrize("sharpness", [20.0, 3000.0, 2e6])
def test_neus_opacity(n, sharpness):
    # Within a few widths of the sigmoid, where float32 still tells the distances apart.
    sdf, slope = torch.randn(n) * 3 / sharpness, -torch.rand(n)
    width, d_alpha = torch.rand(n) / sharpness, torch.randn(n)

    def run(backend, dtype):
        parameters = leaves([sdf, slope, torch.tensor(sharpness)], dtype)
        alpha = ops.neus_alpha(parameters[0], parameters[1], width.to(dtype), parameters[2], backend)
        alpha.backward(d_alpha.to(dtype))
        return [alpha.detach(), *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, 1e-4)


def test_only_the_upstream_gradients_that_exist_are_used():
    case = CASES[1]
    table, weights, biases = case.parameters()
    x = points_inside_cells(100, case.layout())
    for used in (0, 1):

        def run(backend, dtype, used=used):
            entries, *rest = parameters = leaves([table, *weights, *biases], dtype)
            options = rest[: len(weights)], rest[len(weights) :], case.activation, case.n_active
            ops.sdf_field(x.to(dtype), entries, case.layout(), *options, backend=backend)[
                used
            ].square().sum().backward()
            return gradients(parameters)

        for actual, expected in both(run):
            assert_close(actual, expected, TOLERANCE)


def test_points_outside_the_cube_are_clamped_and_nan_stays_visible():
    layout = GridLayout(4, 2, 8, 4, 1.5)
    table = torch.rand(layout.n_entries, 2)
    x = torch.tensor([[-1.0, 0.43, 2.0, float("nan")], [0.31, 1.7, -0.1, 0.5], [0.71, 9.0, 0.64, 0.5]])
    for actual, expected in both(lambda b, t: ops.encode_jacobian(x.to(t), table.to(t), layout, backend=b)):
        assert_close(actual[..., :3], expected[..., :3], TOLERANCE)
        assert bool(actual[..., 3].isnan().any() and expected[..., 3].isnan().any())


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("output", ["none", "relu", "sigmoid"])
def test_nan_stays_visible_behind_activations(activation, output):
    weights = [torch.rand(8, 5), torch.rand(3, 8)]
    weights[0][2, 1] = float("nan")
    x, biases = torch.rand(5, 70), [None, None]
    for y in both(lambda b, t: [ops.mlp(x.to(t), [w.to(t) for w in weights], biases, activation, output, b)]):
        assert all(one.isnan().all() for one in y)


def test_nan_stays_visible_in_opacities():
    sdf, slope = torch.tensor([float("nan"), 0.1]), torch.tensor([-1.0, float("nan")])
    width, sharpness = torch.full([2], 0.1), torch.tensor(20.0)
    for alpha in both(lambda b, t: [ops.neus_alpha(sdf.to(t), slope.to(t), width.to(t), sharpness.to(t), b)]):
        assert all(one.isnan().all() for one in alpha)


def test_inputs_need_not_be_contiguous():
    case = CASES[0]
    table, weights, biases = case.parameters()
    x = points_inside_cells(70, case.layout()).t().contiguous().t()
    weights_f = [w.float().t().contiguous().t() for w in weights]
    options = case.layout(), weights_f, [b if b is None else b.float() for b in biases], case.activation
    strided = ops.sdf_field(x, table.float(), *options, backend="native")
    dense = ops.sdf_field(x.contiguous(), table.float(), *options, backend="native")
    assert torch.equal(strided[0], dense[0]) and torch.equal(strided[1], dense[1])


def test_the_same_inputs_give_the_same_bits():
    case = CASES[0]
    table, weights, biases = case.parameters()
    x = torch.rand(3, 20000)

    def train():
        entries, *rest = parameters = leaves([table, *weights, *biases], torch.float32)
        options = rest[: len(weights)], rest[len(weights) :], case.activation
        outputs, gradient = ops.sdf_field(x, entries, case.layout(), *options, backend="native")
        (outputs.square().sum() + gradient.square().sum()).backward()
        return [outputs, gradient, *gradients(parameters)]

    for first, second in zip(train(), train(), strict=True):
        assert torch.equal(first, second)


def test_the_number_of_threads_changes_nothing_but_rounding():
    case, n_threads = CASES[0], torch.get_num_threads()
    table, weights, biases = case.parameters()
    x, results = torch.rand(3, 5000), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            entries, *rest = parameters = leaves([table, *weights, *biases], torch.float32)
            options = rest[: len(weights)], rest[len(weights) :], case.activation
            outputs, gradient = ops.sdf_field(x, entries, case.layout(), *options, backend="native")
            (outputs.sum() + gradient.square().sum()).backward()
            results.append([outputs.detach(), gradient.detach(), *gradients(parameters)])
    finally:
        torch.set_num_threads(n_threads)
    for one, three in zip(*results, strict=True):
        assert_close(one, three, 1e-5)


def test_a_second_derivative_is_an_error_and_never_a_silent_zero():
    layout = GridLayout(2, 2, 8, 4, 1.5)
    x = torch.rand(3, 10).requires_grad_()
    y = ops.encode(x, torch.rand(layout.n_entries, 2), layout, backend="native")
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_a_position_gradient_of_a_distance_field_is_refused_by_its_kernel():
    case = CASES[0]
    table, weights, biases = leaves([case.parameters()[0]], torch.float32)[0], *case.parameters()[1:]
    weights, biases = leaves(weights, torch.float32), leaves(biases, torch.float32)
    x = torch.rand(3, 8).requires_grad_()
    with pytest.raises(RuntimeError, match="detach x"):
        ops.sdf_field(x, table, case.layout(), weights, biases, case.activation, backend="native")
    _, gradient = ops.sdf_field(x, table, case.layout(), weights, biases, case.activation)
    gradient.square().sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0


def test_subnormal_numbers_are_zero_to_kernels_and_to_nobody_else():
    small = torch.full((1, 4096), 1e-40)
    (product,) = ops.mlp(small, [torch.ones(1, 1)], [None], "relu", backend="native")
    assert not product.any()
    assert (small * 1).all(), "the caller's arithmetic has changed"
