"""The native networks as autograd functions: what they call, what they keep for the backward pass.

Parameters arrive as weights of all layers, then biases of all layers (None where a layer has none). Of a network only
the inputs are kept (networks.h), of an encoding its Jacobian.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.ops import native
from models.ops.autograd import first_order_only
from models.ops.hash_grid import encode_by_tile, encode_into, pull_to_position, scatter
from models.ops.layout import GridLayout

MOST_LAYERS = 5  # as in networks.h
MOST_WIDTH = 256  # tiles of wider layers leave the caches, and large matrix products are what torch is good at
CODES = {"none": 0, "relu": 1, "sigmoid": 2, "softplus": 3}  # `Activation` of kernels.h

Parameters = Sequence[Tensor | None]


def network_obstacle(weights: Sequence[Tensor]) -> str:
    """Why the kernels cannot take this network; empty if they can."""
    if len(weights) > MOST_LAYERS:
        return f"the kernels have at most {MOST_LAYERS - 1} hidden layers and were given {len(weights) - 1}"
    widest = max(max(weight.shape) for weight in weights)
    return (
        f"the kernels have at most {MOST_WIDTH} neurons a layer and were given {widest}" if widest > MOST_WIDTH else ""
    )


@dataclass(frozen=True)
class Plan:
    """Everything about a network that is not a tensor.

    Attributes:
        activation, output_activation: names.
    """

    activation: str
    output_activation: str


@dataclass(frozen=True)
class FieldInputs:
    """How a field's network gets its inputs: n_xyz rows `2 x - 1` (3 or 0), then the active levels' features."""

    layout: GridLayout
    n_active: int
    n_xyz: int

    def encode(self, x: Tensor, table: Tensor, with_jacobian: bool) -> tuple[Tensor, Tensor | None]:
        """Inputs [n_xyz + n_active * F, N], and the derivative [n_active * F, 3, N] of the features by x."""
        inputs = self._begin(x)
        jacobian = x.new_empty(self.n_features, 3, x.shape[1]) if with_jacobian else None
        encode_into(inputs[self.n_xyz :], jacobian, x, table, self.layout, self.n_active)
        return inputs, jacobian

    def encode_by_tile(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the derivative in the order in which `sdf_forward` and `sdf_backward` read it; on a CPU."""
        inputs = self._begin(x)
        jacobian = encode_by_tile(inputs[self.n_xyz :], x, table, self.layout, self.n_active)
        return inputs, jacobian

    def scatter(
        self, x: Tensor, d_features: Tensor, tau: Tensor | None = None, d_gradient: Tensor | None = None
    ) -> Tensor:
        """Gradient by the table; see `hash_grid.scatter`."""
        return scatter(x, self.layout, self.n_active, d_features, tau, d_gradient)

    @property
    def n_features(self) -> int:
        return self.n_active * self.layout.n_features

    def _begin(self, x: Tensor) -> Tensor:
        """Inputs of which the features are to be written."""
        inputs = x.new_empty(self.n_xyz + self.n_features, x.shape[1])
        if self.n_xyz:
            torch.mul(x, 2, out=inputs[:3]).sub_(1)
        return inputs


class Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, x: Tensor, *parameters: Tensor | None) -> Tensor:
        x, parameters = x.contiguous(), _contiguous(parameters)
        outputs = _run(plan, x, parameters)
        ctx.plan = plan
        ctx.save_for_backward(x, outputs, *parameters)
        return outputs

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, outputs, *parameters = ctx.saved_tensors
        d_x = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        return None, d_x, *_run_back(ctx.plan, x, outputs, parameters, d_outputs, 0, d_x)


class Field(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, source: FieldInputs, x: Tensor, table: Tensor, *parameters: Tensor | None
    ) -> Tensor:
        x, parameters = x.contiguous(), _contiguous(parameters)
        inputs, jacobian = source.encode(x, table.contiguous(), ctx.needs_input_grad[2])
        outputs = _run(plan, inputs, parameters)
        ctx.plan, ctx.source = plan, source
        ctx.save_for_backward(x, inputs, jacobian, *parameters)
        return outputs

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, inputs, jacobian, *parameters = ctx.saved_tensors
        source: FieldInputs = ctx.source
        d_inputs = torch.empty_like(inputs)
        d_parameters = _run_back(ctx.plan, inputs, None, parameters, d_outputs, 0, d_inputs)
        d_features, d_x, d_table = d_inputs[source.n_xyz :], None, None
        if ctx.needs_input_grad[2]:
            d_x = pull_to_position(jacobian, d_features)
            if source.n_xyz:
                d_x.add_(d_inputs[:3], alpha=2)
        if ctx.needs_input_grad[3]:
            d_table = source.scatter(x, d_features)
        return None, None, d_x, d_table, *d_parameters


class SdfField(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, source: FieldInputs, x: Tensor, table: Tensor, *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x, parameters = x.contiguous(), _contiguous(parameters)
        inputs, jacobian = source.encode_by_tile(x, table.contiguous())
        network, n_points = _network(plan, inputs, parameters), x.shape[1]
        outputs, gradient = x.new_empty(network.n_outputs, n_points), torch.empty_like(x)
        native.call("sdf_forward", network, source.n_xyz, n_points, inputs, jacobian, outputs, gradient)
        ctx.plan, ctx.source = plan, source
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, inputs, jacobian, *parameters)
        return outputs, gradient

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_outputs: Tensor | None, d_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        x, inputs, jacobian, *parameters = ctx.saved_tensors
        source: FieldInputs = ctx.source
        network = _network(ctx.plan, inputs, parameters)
        upstream: Tensor = x.new_zeros(network.n_outputs, x.shape[1]) if d_outputs is None else d_outputs.contiguous()
        d_features = torch.empty_like(inputs[source.n_xyz :])
        if d_gradient is None:
            d_parameters = _run_back(ctx.plan, inputs, None, parameters, upstream, source.n_xyz, d_features)
            return None, None, None, source.scatter(x, d_features), *d_parameters
        d_gradient, d_parameters = d_gradient.contiguous(), _zeros_like(parameters)
        tau = torch.empty_like(d_features)
        arrays = inputs, jacobian, upstream, d_gradient, d_features, tau
        native.call("sdf_backward", network, source.n_xyz, x.shape[1], *arrays, *_addresses(d_parameters))
        return None, None, None, source.scatter(x, d_features, tau, d_gradient), *d_parameters


def _run(plan: Plan, inputs: Tensor, parameters: Parameters) -> Tensor:
    """Outputs of a network."""
    network, n_points = _network(plan, inputs, parameters), inputs.shape[1]
    outputs = inputs.new_empty(network.n_outputs, n_points)
    native.call("mlp_forward", network, n_points, inputs, outputs)
    return outputs


def _run_back(
    plan: Plan,
    inputs: Tensor,
    outputs: Tensor | None,
    parameters: Parameters,
    d_outputs: Tensor,
    first_input: int,
    d_inputs: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Gradients by the parameters; writes those by the inputs, from row `first_input` on, into d_inputs."""
    d_parameters = _zeros_like(parameters)
    arrays = inputs, outputs, d_outputs.contiguous(), first_input, d_inputs
    network = _network(plan, inputs, parameters)
    native.call("mlp_backward", network, inputs.shape[1], *arrays, *_addresses(d_parameters))
    return d_parameters


def _contiguous(tensors: Parameters) -> tuple[Tensor | None, ...]:
    return tuple(None if tensor is None else tensor.contiguous() for tensor in tensors)


def _zeros_like(tensors: Parameters) -> tuple[Tensor | None, ...]:
    return tuple(None if tensor is None else torch.zeros_like(tensor) for tensor in tensors)


def _addresses(parameters: Parameters) -> tuple[ctypes.Array, ctypes.Array]:
    """Where weights and biases lie, a null pointer for an absent bias."""
    n_layers = len(parameters) // 2
    addresses = [None if tensor is None else tensor.data_ptr() for tensor in parameters]
    pointers = ctypes.c_void_p * MOST_LAYERS
    return pointers(*addresses[:n_layers]), pointers(*addresses[n_layers:])


class _Network(ctypes.Structure):
    """`Network` of networks.h; does not keep the parameters alive."""

    _fields_ = [
        ("n_layers", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("output_activation", ctypes.c_int32),
        ("first_stride", ctypes.c_int32),
        ("widths", ctypes.c_int32 * (MOST_LAYERS + 1)),
        ("weights", ctypes.c_void_p * MOST_LAYERS),
        ("biases", ctypes.c_void_p * MOST_LAYERS),
    ]

    @property
    def n_outputs(self) -> int:
        return self.widths[self.n_layers]


def _network(plan: Plan, inputs: Tensor, parameters: Parameters) -> _Network:
    weights, biases = _addresses(parameters)
    layers: Any = parameters[: len(parameters) // 2]
    return _Network(
        n_layers=len(layers),
        activation=CODES[plan.activation],
        output_activation=CODES[plan.output_activation],
        first_stride=layers[0].shape[1],
        widths=(ctypes.c_int32 * (MOST_LAYERS + 1))(len(inputs), *(len(weight) for weight in layers)),
        weights=weights,
        biases=biases,
    )
