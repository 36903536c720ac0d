"""Every GPU kernel against its float64 reference: values and all gradients, over awkward sizes."""

import pytest
import torch
from torch.nn.functional import normalize

from models import ops
from models.ops import GridLayout, cuda, dispatch
from tests.ops.cases import FieldCase, assert_close, gradients, leaves, points_inside_cells
from tests.ops.gpu import device_of
from utils.packing import fitting

SIZES = [0, 1, 300]  # a block has 256 threads
CASES = [
    FieldCase(7, 2, (64,), "softplus", outputs=14),
    FieldCase(5, 4, (32, 19), "softplus", n_active=3),
    FieldCase(2, 8, (17, 8, 33), "softplus", include_xyz=False, outputs=1),
    FieldCase(5, 1, (24, 24), "relu", has_biases=False),
    FieldCase(3, 1, (16, 16, 16), "relu", n_active=0),
    FieldCase(5, 2, (), "relu", include_xyz=False),
]
TOLERANCE = 2e-5
# Where a softplus of sharpness 100 bends, a float32 distance decides 100 times its rounding.
BENT = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(autouse=True, params=["sm_90", "gpu"])
def device(request, monkeypatch, folder):
    torch.manual_seed(0)
    return device_of(request.param, monkeypatch, folder)


@pytest.fixture
def both(device):
    """Results of run(backend, place) by the kernels in float32 and by the reference in float64."""

    def compare(run):
        here = run("native", lambda t: None if t is None else t.to(device, torch.float32))
        there = run("reference", lambda t: None if t is None else t.to("cpu", torch.float64))
        return [(actual.detach().cpu(), expected.detach()) for actual, expected in zip(here, there, strict=True)]

    return compare


def placed(tensors, place):
    """Copies that gather gradients, put in place."""
    return [None if t is None else place(t).detach().clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("n", [*SIZES, 255, 256, 257])
@pytest.mark.parametrize(("levels", "features", "n_active"), [(1, 1, None), (5, 2, 3), (4, 4, None), (3, 8, 0)])
def test_encoding(both, n, levels, features, n_active):
    layout = GridLayout(levels, features, 10, 4, 1.2)
    x, table = points_inside_cells(n, layout), torch.rand(layout.n_entries, features) - 0.5
    d_y = torch.randn(layout.n_outputs, n)

    def run(backend, place):
        jacobian = ops.encode_jacobian(place(x), place(table), layout, n_active, backend)
        point, entries = parameters = placed([x, table], place)
        y = ops.encode(point, entries, layout, n_active, backend)
        if y.requires_grad:  # that of no level at all does not
            y.backward(place(d_y))
        return [*jacobian, y, *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_additions_in_memory_of_gpus_before_hopper(features, monkeypatch, folder):
    device_of("sm_80", monkeypatch, folder)
    layout = GridLayout(3, features, 10, 4, 1.2)
    x, table = torch.rand(3, 300), torch.rand(layout.n_entries, features)
    results = []
    for backend in ("native", "reference"):
        (entries,) = leaves([table], torch.float32)
        ops.encode(x, entries, layout, backend=backend).square().sum().backward()
        results.append(entries.grad)
    assert_close(*results, TOLERANCE)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_distance_fields_and_their_gradients(both, case, n):
    layout, x = case.layout(), points_inside_cells(n, case.layout())
    table, weights, biases = case.parameters()
    d_outputs, d_gradient = torch.randn(case.outputs, n), torch.randn(3, n)

    def run(backend, place):
        entries, *rest = parameters = placed([table, *weights, *biases], place)
        options = rest[: len(weights)], rest[len(weights) :], case.activation, case.n_active, case.include_xyz
        outputs, gradient = ops.sdf_field(place(x), entries, layout, *options, backend=backend)
        torch.autograd.backward([outputs, gradient], [place(d_outputs), place(d_gradient)])
        return [outputs, gradient, *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, BENT)


@pytest.mark.parametrize("used", [0, 1])
def test_only_the_upstream_gradients_that_exist_are_used(both, used):
    case = CASES[1]
    table, weights, biases = case.parameters()
    x = points_inside_cells(100, case.layout())

    def run(backend, place):
        entries, *rest = parameters = placed([table, *weights, *biases], place)
        options = rest[: len(weights)], rest[len(weights) :], case.activation, case.n_active
        results = ops.sdf_field(place(x), entries, case.layout(), *options, backend=backend)
        results[used].square().sum().backward()
        return gradients(parameters)

    for actual, expected in both(run):
        assert_close(actual, expected, BENT)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fields(both, case, n):
    layout, x = case.layout(), points_inside_cells(n, case.layout())
    table, weights, biases = case.parameters()
    d_outputs = torch.randn(case.outputs, n)

    def run(backend, place):
        point, entries, *rest = parameters = placed([x, table, *weights, *biases], place)
        options = rest[: len(weights)], rest[len(weights) :], case.activation, case.n_active, case.include_xyz
        outputs = ops.field(point, entries, layout, *options, backend=backend)
        outputs.backward(place(d_outputs))
        return [outputs, *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, TOLERANCE)


@pytest.mark.parametrize("widths", [(35, 64, 64, 3), (3, 1), (7, 300, 5)], ids=str)
@pytest.mark.parametrize(("activation", "output"), [("relu", "sigmoid"), ("softplus", "relu"), ("relu", "none")])
def test_perceptrons_of_any_width(both, widths, activation, output):
    x, d_outputs = torch.randn(widths[0], 50), torch.randn(widths[-1], 50)
    weights = [torch.randn(b, a) / a**0.5 for a, b in zip(widths, widths[1:], strict=False)]
    biases = [None if b == 5 else torch.randn(b) for b in widths[1:]]

    def run(backend, place):
        point, *rest = parameters = placed([x, *weights, *biases], place)
        outputs = ops.mlp(point, rest[: len(weights)], rest[len(weights) :], activation, output, backend)
        outputs.backward(place(d_outputs))
        return [outputs, *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, TOLERANCE)


def test_half_precision_is_for_colours_and_not_for_distances(device):
    case = CASES[0]
    table, weights, biases = case.parameters()
    x = points_inside_cells(100, case.layout()).to(device)
    numbers = [t if t is None else t.float().to(device) for t in (table, *weights, *biases)]
    options = numbers[0], case.layout(), numbers[1:3], numbers[3:], case.activation
    exact = ops.sdf_field(x, *options, backend="native"), ops.field(x, *options, backend="native")
    with torch.autocast(device.type, torch.bfloat16):
        rough = ops.sdf_field(x, *options, backend="native"), ops.field(x, *options, backend="native")
    assert torch.equal(exact[0][0], rough[0][0]) and torch.equal(exact[0][1], rough[0][1])
    assert rough[1].dtype == torch.float32
    error = (rough[1] - exact[1]).abs().max() / exact[1].abs().max()
    assert 1e-4 < float(error) < 3e-2


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("n", SIZES)
def test_spherical_harmonics(both, n, degree):
    d = normalize(torch.randn(3, n).double(), dim=0)
    for actual, expected in both(lambda backend, place: [ops.spherical_harmonics(place(d), degree, backend)]):
        assert_close(actual, expected, 1e-6)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("sharpness", [20.0, 3000.0, 2e6])
def test_neus_opacity(both, n, sharpness):
    # Within a few widths of the sigmoid, where float32 still tells the distances apart.
    sdf, slope = torch.randn(n) * 3 / sharpness, -torch.rand(n)
    width, d_alpha = torch.rand(n) / sharpness, torch.randn(n)

    def run(backend, place):
        parameters = placed([sdf, slope, torch.tensor(sharpness)], place)
        alpha = ops.neus_alpha(parameters[0], parameters[1], place(width), parameters[2], backend)
        alpha.backward(place(d_alpha))
        return [alpha, *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, 1e-4)


@pytest.mark.parametrize("n_rays", [0, 1, 255, 300])
def test_compositing(both, n_rays):
    counts = torch.randint(90, (n_rays,)) * torch.randint(2, (n_rays,))  # half of the rays are empty
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    n = int(offsets[-1])
    alpha, values = torch.rand(n) * 0.2, torch.randn(5, n)
    alpha[::7], alpha[3::11] = 1.0, 0.0
    d_weights, d_sums = torch.randn(n), torch.randn(5, n_rays)

    def run(backend, place):
        parameters = placed([alpha, values], place)
        weights, sums = ops.composite(*parameters, offsets, backend)
        torch.autograd.backward([weights, sums], [place(d_weights), place(d_sums)])
        return [weights, sums, *gradients(parameters)]

    for actual, expected in both(run):
        assert_close(actual, expected, 1e-5)


def test_distortion(both):
    counts = torch.randint(40, (300,)) * torch.randint(2, (300,))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    n = int(offsets[-1])
    weights, t, width, d_spread = torch.rand(n), torch.rand(n).sort().values, torch.rand(n), torch.randn(300)

    def run(backend, place):
        (w,) = placed([weights], place)
        spread = ops.distortion(w, place(t), place(width), offsets, backend)
        spread.backward(place(d_spread))
        return [spread, w.grad]

    for actual, expected in both(run):
        assert_close(actual, expected, 1e-4)


def test_offsets_that_do_not_fit_leave_no_array(device):
    offsets = torch.tensor([0, 5, 2, 900, -3])
    alpha = torch.rand(7, device=device).requires_grad_()
    weights, sums = ops.composite(alpha, torch.rand(2, 7, device=device), offsets, "native")
    (weights.sum() + sums.sum()).backward()
    assert sums.shape == (2, 4) and alpha.grad is not None


@pytest.mark.parametrize(
    ("space", "cone", "near", "far"),
    [("box", 0.0, 0.0, 100.0), ("box", 0.02, 0.5, 3.5), ("sphere", 0.03, 0.2, 300.0), ("sphere", 0.0, 0.1, 8.0)],
)
def test_marching(device, space, cone, near, far):
    n = 300
    origins = normalize(torch.randn(n, 3), dim=1) * 3
    directions = normalize(torch.randn(n, 3) * 0.7 - origins, dim=1)
    grid = torch.multinomial(torch.tensor([0.7, 0.27, 0.03]), 8**3, replacement=True).view(8, 8, 8).to(torch.uint8)
    grid[:4, 4:] = 0  # blocks to leap over
    ranges = torch.full((n,), near), torch.full((n,), far)
    origins[3, 1], directions[7], directions[9, 0] = float("nan"), float("inf"), 0.0
    jitter = torch.rand(n)
    results = []
    for backend, place in (("native", lambda t: t.to(device)), ("reference", lambda t: t)):
        arrays = [place(t) for t in (origins, directions, *ranges, grid)]
        march = ops.march(*arrays, space, 1.2, 0.05, cone, place(jitter), backend=backend)
        results.append([t.cpu() for t in march])
        if backend == "native":
            gaps = ops.empty_gaps(arrays[-1])
            leaping = ops.march(*arrays, space, 1.2, 0.05, cone, place(jitter), gaps=gaps, backend=backend)
            assert all(torch.equal(a, b.cpu()) for a, b in zip(results[0], leaping, strict=True))
    here, there = results
    assert torch.equal(here[2], torch.repeat_interleave(torch.arange(n), here[3].diff()))
    # Rounding may decide otherwise where a midpoint lies in a face: on a few rays.
    same = (here[3].diff() == there[3].diff()).nonzero()[:, 0]
    assert len(same) > 0.97 * n and len(there[0]) > n
    for r in same.tolist():
        for a, b in zip(here[:2], there[:2], strict=True):
            a, b = a[here[3][r] : here[3][r + 1]], b[there[3][r] : there[3][r + 1]]
            assert torch.allclose(a, b, rtol=3e-5, atol=1e-5)


@pytest.mark.parametrize("spare", [-1, 0, 700])
def test_marching_into_arrays_of_a_given_length(device, spare):
    n = 300
    origins = normalize(torch.randn(n, 3), dim=1).to(device) * 3
    directions = normalize(torch.randn(n, 3, device=device) * 0.3 - origins, dim=1)
    grid = (torch.rand(8, 8, 8, device=device) < 0.5).to(torch.uint8)
    near = torch.zeros(n, device=device)
    arguments = origins, directions, near, near + 9, grid, "box", 1.2
    step = torch.tensor(0.05, device=device)  # the host need not know it
    exact = ops.march(*arguments, 0.05, 0.0, near + 0.3, "native")
    capacity = len(exact[0]) + spare
    *arrays, offsets = ops.march(*arguments, step, 0.0, near + 0.3, "native", None, capacity)
    assert torch.equal(offsets, exact[3])
    fitted, is_whole = fitting(offsets, capacity)
    assert bool(is_whole.all()) == (spare >= 0)
    last = int(fitted[-1])
    for values, expected in zip(arrays, exact[:3], strict=True):
        assert len(values) == capacity and not values[last:].any()
        assert torch.equal(values[:last], expected[:last])
    with pytest.raises(ValueError, match="a capacity of 9 is for the kernels"):
        ops.march(*arguments, step, 0.0, near, "reference", None, 9)


def test_padding_has_no_weight_and_no_gradient_whatever_it_holds(device):
    offsets = torch.tensor([0, 3, 3, 7], device=device)
    alpha, values = torch.rand(50, device=device), torch.rand(2, 50, device=device)
    t, width = torch.rand(2, 50, device=device)
    results = []
    for n in (7, 50):
        a, v, w = placed([alpha[:n], values[:, :n], alpha[:n]], lambda tensor: tensor)
        weights, sums = ops.composite(a, v, offsets, "native")
        spread = ops.distortion(w, t[:n].contiguous(), width[:n].contiguous(), offsets, "native")
        ((weights * (1 + a.detach())).sum() + sums.square().sum() + spread.sum()).backward()
        results.append([weights.detach(), a.grad, w.grad, sums.detach().t(), v.grad.t(), spread.detach()])
    for exact, padded in zip(*results, strict=True):
        assert torch.equal(exact, padded[: len(exact)]) and not padded[len(exact) :].any()


def test_no_rays_and_no_samples(device):
    nothing = torch.zeros(0, 3, device=device)
    grid = torch.zeros(4, 4, 4, dtype=torch.uint8, device=device)
    for rays in (nothing, torch.ones(3, 3, device=device)):
        near = rays[:, 0]
        _, _, ray, offsets = ops.march(rays, rays, near, 3 * near, grid, "box", 1.0, 0.1, 0.0, near, backend="native")
        assert not len(ray) and offsets.tolist() == [0] * (len(rays) + 1)


def test_points_outside_the_cube_are_clamped_and_nan_stays_visible(both):
    layout = GridLayout(4, 2, 8, 4, 1.5)
    table = torch.rand(layout.n_entries, 2)
    x = torch.tensor([[-1.0, 0.43, 2.0, float("nan")], [0.31, 1.7, -0.1, 0.5], [0.71, 9.0, 0.64, 0.5]])
    for actual, expected in both(lambda b, place: ops.encode_jacobian(place(x), place(table), layout, backend=b)):
        assert_close(actual[..., :3], expected[..., :3], TOLERANCE)
        assert bool(actual[..., 3].isnan().any() and expected[..., 3].isnan().any())


def test_inputs_need_be_neither_contiguous_nor_aligned(device):
    layout = GridLayout(3, 4, 8, 4, 1.5)
    x = torch.rand(70, 3, device=device).t()
    memory = torch.rand(layout.n_entries * 4 + 1, device=device)
    table = memory[1:].view(-1, 4)
    odd = ops.encode(x, table, layout, backend="native")
    assert torch.equal(odd, ops.encode(x.contiguous(), table.clone(), layout, backend="native"))


def test_a_second_derivative_is_an_error_and_never_a_silent_zero(device):
    case = CASES[0]
    numbers = [t if t is None else t.float().to(device) for part in case.parameters() for t in _listed(part)]
    table, *rest = [t if t is None else t.requires_grad_() for t in numbers]
    x = torch.rand(3, 10, device=device)
    options = table, case.layout(), rest[:2], rest[2:], case.activation
    outputs, gradient = ops.sdf_field(x, *options, backend="native")
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(outputs.sum() + gradient.sum(), table, create_graph=True)
    with pytest.raises(RuntimeError, match="detach x"):
        ops.sdf_field(x.requires_grad_(), *options, backend="native")


def _listed(part):
    return part if isinstance(part, list) else [part]


def test_kernels_queue_on_the_current_stream_and_can_be_captured(device):
    if device.type != "cuda":
        pytest.skip("only a GPU has streams")
    case = CASES[0]
    table, weights, biases = [[t if t is None else t.float().to(device) for t in _listed(p)] for p in case.parameters()]
    points = torch.rand(2, 3, 1000, device=device)
    x = points[0].clone()
    run = lambda: ops.sdf_field(x, table[0], case.layout(), weights, biases, case.activation, backend="native")  # noqa: E731
    expected = [run()]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # on a stream of its own
        captured = run()
    for point in points.flip(0):
        x.copy_(point)
        graph.replay()
        expected.append([t.clone() for t in captured])
    for first, last in zip(expected[0], expected[-1], strict=True):
        assert torch.equal(first, last)
    assert not torch.equal(expected[1][0], expected[2][0])


def test_a_kernel_that_does_not_exist_is_told_by_the_driver(device, monkeypatch):
    monkeypatch.setitem(cuda.LAUNCHES, "no_such", lambda x: [cuda.Launch("no_such", 1, 1, (x,))])
    with pytest.raises(RuntimeError, match="the CUDA driver says: named symbol not found"):
        dispatch.call("no_such", torch.zeros(1, device=device))
