"""The tinycudann backend against a stand-in that lays out and computes what tiny-cuda-nn does, slowly."""

import math
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional

from models import ops
from models.ops import GridLayout, dispatch
from tests.ops.cases import assert_close, gradients, leaves, points_inside_cells
from utils.registry import ConfigError

HALF = 1e-3  # of the outputs and the upstream gradients, which are cast


class Module(nn.Module):
    """What all its modules have: parameters of their own, rows in, rows of half precision out, no empty batches."""

    def __init__(self, n_parameters):
        super().__init__()
        self.params = nn.Parameter(torch.zeros(n_parameters))

    def forward(self, x):
        assert x.dtype == torch.float32 and len(x) > 0 and self.params.dtype == torch.float32
        return self.compute(x, self.params).half()


class Encoding(Module):
    """A hash grid; `n_vertices` of an axis of a level are one less than with us."""

    def __init__(self, n_inputs, config):
        assert n_inputs == 3 and config["otype"] == "HashGrid"
        self.config, most = config, 2 ** config["log2_hashmap_size"]
        levels = range(config["n_levels"])
        self.scales = [config["base_resolution"] * config["per_level_scale"] ** level - 1 for level in levels]
        self.sizes = [min(-(-((math.ceil(scale) + 1) ** 3) // 8) * 8, most) for scale in self.scales]
        super().__init__(sum(self.sizes) * config["n_features_per_level"])

    def compute(self, x, params):
        entries, outputs = params.view(-1, self.config["n_features_per_level"]), []
        for scale, part in zip(self.scales, entries.split(self.sizes), strict=True):
            n_vertices, position = math.ceil(scale) + 1, x * scale + 0.5
            first, total = position.floor().long(), 0
            for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
                vertex, fraction = first + corner, position - first
                weight = torch.where(corner.bool(), fraction, 1 - fraction).prod(1, keepdim=True)
                index = vertex[:, 0] + n_vertices * (vertex[:, 1] + n_vertices * vertex[:, 2])
                if n_vertices**3 > len(part):
                    index = vertex[:, 0] ^ vertex[:, 1] * 2654435761 ^ vertex[:, 2] * 805459861
                total = total + weight * part[index % len(part)]
            outputs.append(total)
        return torch.cat(outputs, 1)


class Network(Module):
    """Fully fused: matrices padded to 16, and padded inputs that are one."""

    def __init__(self, n_inputs, n_outputs, config):
        assert config["otype"] == "FullyFusedMLP" and config["activation"] == "ReLU"
        width, n_middle = config["n_neurons"], config["n_hidden_layers"] - 1
        pad = lambda n: -(-n // 16) * 16  # noqa: E731
        self.shapes = [(width, pad(n_inputs)), *[(width, width)] * n_middle, (pad(n_outputs), width)]
        self.n_outputs, self.output_activation = n_outputs, config["output_activation"]
        super().__init__(sum(a * b for a, b in self.shapes))

    def compute(self, x, params):
        x = functional.pad(x, (0, self.shapes[0][1] - x.shape[1]), value=1.0)
        matrices = params.split([a * b for a, b in self.shapes])
        for i, (matrix, shape) in enumerate(zip(matrices, self.shapes, strict=True)):
            x = (torch.relu(x) if i else x) @ matrix.view(shape).t()
        after = {"None": lambda z: z, "ReLU": torch.relu, "Sigmoid": torch.sigmoid}[self.output_activation]
        return after(x)[:, : self.n_outputs]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    torch.manual_seed(0)
    package = types.ModuleType("tinycudann")
    package.Encoding, package.Network = Encoding, Network
    monkeypatch.setitem(sys.modules, "tinycudann", package)
    monkeypatch.setattr(dispatch, "GPU", ("cuda", "cpu"))  # it believes to be on one


# With 2^10 entries a level of 11 vertices is hashed here and one of 10 dense there.
LAYOUTS = [GridLayout(5, 2, 12, 4, 1.3), GridLayout(3, 4, 8, 4, 1.5), GridLayout(1, 1, 10, 10, 1.0)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("n", [0, 1, 130])
def test_the_encoding_is_that_of_the_reference_with_the_same_table(layout, n):
    x = points_inside_cells(n, layout) * 0.8  # away from the far faces, where it reads another vertex
    table, d_y = torch.rand(layout.n_entries, layout.n_features), torch.randn(layout.n_outputs, n)
    results = []
    for backend in ("tinycudann", "reference"):
        parameters = leaves([x, table], torch.float32)
        y = ops.encode(parameters[0], parameters[1], layout, backend=backend)
        y.backward(d_y)
        results.append([y.detach(), *gradients(parameters)])
    assert results[0][0].dtype == torch.float32
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, HALF)


def test_silent_levels_are_zero_and_not_computed():
    layout = LAYOUTS[0]
    x, table = torch.rand(3, 20) * 0.8, torch.rand(layout.n_entries, 2).requires_grad_()
    y = ops.encode(x, table, layout, 2, "tinycudann")
    y.sum().backward()
    assert not y[4:].any() and y[:4].all() and not table.grad[layout.offsets[2] :].any()
    assert not ops.encode(x, table, layout, 0, "tinycudann").any()


@pytest.mark.parametrize("widths", [(35, 64, 64, 3), (16, 16, 1), (3, 32, 32, 32, 17)], ids=str)
@pytest.mark.parametrize("output", ["none", "relu", "sigmoid"])
def test_networks_are_those_of_the_reference_with_the_same_weights(widths, output):
    x, d_outputs = torch.randn(widths[0], 60), torch.randn(widths[-1], 60)
    weights = [torch.randn(b, a) / a**0.5 for a, b in zip(widths, widths[1:], strict=False)]
    results = []
    for backend in ("tinycudann", "reference"):
        parameters = leaves([x, *weights], torch.float32)
        y = ops.mlp(parameters[0], parameters[1:], [None] * len(weights), "relu", output, backend)
        y.backward(d_outputs)
        results.append([y.detach(), *gradients(parameters)])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, HALF)


def test_a_field_is_an_encoding_and_a_network():
    layout = LAYOUTS[0]
    x, table = points_inside_cells(50, layout) * 0.8, torch.rand(layout.n_entries, 2)
    options = layout, [torch.randn(16, 13) * 0.3, torch.randn(4, 16) * 0.3], [None, None], "relu", 3
    actual, expected = (ops.field(x, table, *options, backend=backend) for backend in ("tinycudann", "reference"))
    assert_close(actual, expected, HALF)


@pytest.mark.parametrize(
    ("widths", "activation", "has_bias"),
    [((3, 16, 1), "softplus", False), ((3, 16, 1), "relu", True), ((3, 20, 1), "relu", False), ((3, 1), "relu", False)],
)
def test_networks_that_it_does_not_have_are_refused(widths, activation, has_bias):
    weights = [torch.zeros(b, a) for a, b in zip(widths, widths[1:], strict=False)]
    biases = [torch.zeros(b) if has_bias else None for b in widths[1:]]
    with pytest.raises(ConfigError, match="backend of mlp is tinycudann, which has hidden layers .* FullyFusedMLP"):
        ops.mlp(torch.zeros(3, 5), weights, biases, activation, backend="tinycudann")


def test_operations_that_it_does_not_have_are_refused():
    layout = LAYOUTS[0]
    x, table, weights = torch.rand(3, 5), torch.rand(layout.n_entries, 2), [torch.zeros(1, 13)]
    with pytest.raises(ConfigError, match="backend of sdf_field is tinycudann, which has no such operation"):
        ops.sdf_field(x, table, layout, weights, [None], "relu", backend="tinycudann")
    with pytest.raises(ConfigError, match="encode_jacobian"):
        ops.encode_jacobian(x, table, layout, backend="tinycudann")
    with pytest.raises(ConfigError, match="has 1, 2, 4 or 8 features, not 3"):
        three = GridLayout(2, 3, 8, 4, 1.5)
        ops.encode(x, torch.rand(three.n_entries, 3), three, backend="tinycudann")


def test_a_layout_that_we_did_not_foresee_is_an_error(monkeypatch):
    class Other(Encoding):
        def __init__(self, n_inputs, config):
            super().__init__(n_inputs, config)
            self.params = nn.Parameter(torch.zeros(8))

    monkeypatch.setattr(sys.modules["tinycudann"], "Encoding", Other)
    with pytest.raises(ConfigError, match="stores 8 numbers of GridLayout"):
        ops.encode(torch.rand(3, 5), torch.rand(LAYOUTS[1].n_entries, 4), LAYOUTS[1], backend="tinycudann")


def test_where_it_is_not_installed_the_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(ConfigError, match="backend of encode is tinycudann, which cannot be imported .* pip install"):
        ops.encode(torch.rand(3, 5), torch.rand(LAYOUTS[1].n_entries, 4), LAYOUTS[1], backend="tinycudann")


def test_on_a_cpu_it_is_refused(monkeypatch):
    monkeypatch.setattr(dispatch, "GPU", ("cuda",))
    with pytest.raises(ConfigError, match="tinycudann, which runs on CUDA only, not on cpu; use backend auto"):
        ops.mlp(torch.zeros(3, 5), [torch.zeros(16, 3), torch.zeros(1, 16)], [None, None], "relu", backend="tinycudann")
