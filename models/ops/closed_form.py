"""Networks as matrix products of whole batches: what runs on a GPU, where torch's products are the fast path.

Colours and densities go through `mlp`, which follows torch's autocast to bf16 or fp16 and returns what it was given.
Distance fields go through `SdfField`: their mathematics stays in float32 whatever autocast says, since half precision
turns a surface to noise; the products round to TF32 only where torch.backends.cuda.matmul.allow_tf32 says so.

With a_0 the inputs, z_l = W_l a_l + b_l and a_(l+1) = phi(z_l), the gradient of output 0 by the inputs is the reverse
pass tau_H = row 0 of W_H, tau_l = W_l^T (phi'(z_l) tau_(l+1)). Its own backward pass, for upstream gradient u, is the
forward tangent t_0 = J u, q_l = W_l t_l, t_(l+1) = phi'(z_l) q_l, folded into the usual one:
  d z_l = phi' d a_(l+1) + phi'' q_l tau_(l+1),   d W_l = d z_l a_l^T + (phi' tau_(l+1)) t_l^T.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from models.ops import reference
from models.ops.autograd import first_order_only
from models.ops.dispatch import call
from models.ops.hash_grid import pull_to_position
from models.ops.network_kernels import FieldInputs

Weights = Sequence[Tensor]
Biases = Sequence[Tensor | None]


def sum_in_single_precision() -> None:
    """Has a GPU add up products of half precision in float32 to the end: gradients by weights are sums over a batch."""
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def mlp(x: Tensor, weights: Weights, biases: Biases, activation: str, output_activation: str) -> Tensor:
    """`networks.mlp`; differentiable as torch is, by everything."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = reference.ACTIVATIONS[activation][0](_affine(weight, bias, x))
    output = _affine(weights[-1], biases[-1], x)
    return reference.OUTPUT_ACTIVATIONS[output_activation](output.to(weights[-1].dtype))


class SdfField(torch.autograd.Function):
    """`networks.sdf_field` of points without gradient: (source, activation, x, table, *weights, *biases)."""

    @staticmethod
    def forward(
        ctx: Any, source: FieldInputs, activation: str, x: Tensor, table: Tensor, *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        inputs, jacobian = source.encode(x, table.contiguous(), with_jacobian=True)
        assert jacobian is not None
        weights, biases = _split(parameters, len(inputs))
        with torch.autocast(x.device.type, enabled=False):
            z = _layers(inputs, weights, biases, activation)
            tau = _reverse(weights, z, activation)
        gradient = pull_to_position(jacobian, tau[0][source.n_xyz :].contiguous())
        if source.n_xyz:
            gradient.add_(tau[0][:3], alpha=2)
        ctx.source, ctx.activation = source, activation
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, inputs, jacobian, *parameters, *z[:-1], *tau)
        return z[-1], gradient

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_outputs: Tensor | None, d_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        x, inputs, jacobian, *saved = ctx.saved_tensors
        source: FieldInputs = ctx.source
        n = (len(saved) + 1) // 4  # layers
        parameters, z, tau = saved[: 2 * n], saved[2 * n : 3 * n - 1], saved[3 * n - 1 :]
        weights, biases = _split(parameters, len(inputs))
        upstream: Tensor = x.new_zeros(len(weights[-1]), x.shape[1]) if d_outputs is None else d_outputs
        tau_features, tangent = None, None
        if d_gradient is not None:
            d_gradient, tau_features = d_gradient.contiguous(), tau[0][source.n_xyz :].contiguous()
            tangent = torch.cat([2 * d_gradient[: source.n_xyz], _push_to_features(jacobian, d_gradient)])
        with torch.autocast(x.device.type, enabled=False):
            d_inputs, d_weights, d_biases = _back(weights, z, tau, inputs, ctx.activation, upstream, tangent)
        d_weights[0] = functional.pad(d_weights[0], (0, parameters[0].shape[1] - len(inputs)))
        d_table = source.scatter(x, d_inputs[source.n_xyz :].contiguous(), tau_features, d_gradient)
        d_biases = [None if bias is None else d for bias, d in zip(biases, d_biases, strict=True)]
        return None, None, None, d_table, *d_weights, *d_biases


def _split(parameters: Sequence[Any], n_inputs: int) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights, the first without the columns of silent levels, and biases."""
    n = len(parameters) // 2
    return [parameters[0][:, :n_inputs], *parameters[1:n]], list(parameters[n:])


def _affine(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    return weight @ x if bias is None else torch.addmm(bias[:, None], weight, x)


def _layers(inputs: Tensor, weights: Weights, biases: Biases, activation: str) -> list[Tensor]:
    """z of every layer."""
    z, a = [], inputs
    for weight, bias in zip(weights, biases, strict=True):
        z.append(_affine(weight, bias, a))
        a = reference.ACTIVATIONS[activation][0](z[-1]) if len(z) < len(weights) else a
    return z


def _reverse(weights: Weights, z: Sequence[Tensor], activation: str) -> list[Tensor]:
    """tau_0 ... tau_H."""
    tau = [weights[-1][:1].t().expand(-1, z[-1].shape[1])]
    for weight, z_l in zip(reversed(weights[:-1]), reversed(z[:-1]), strict=True):
        tau.insert(0, weight.t() @ (reference.ACTIVATIONS[activation][1](z_l) * tau[0]))
    return tau


def _back(
    weights: Weights,
    z: Sequence[Tensor],
    tau: Sequence[Tensor],
    inputs: Tensor,
    activation: str,
    d_outputs: Tensor,
    tangent: Tensor | None,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients by inputs, weights and biases; `tangent` is t_0, or None where nothing depends on the gradient."""
    value, slope = reference.ACTIVATIONS[activation]
    a, slopes, last = [inputs, *map(value, z)], [slope(z_l) for z_l in z], len(z)
    t = [] if tangent is None else [tangent]
    for weight, s in zip(weights[:-1] if t else [], slopes, strict=False):
        t.append(s * (weight @ t[-1]))
    d, d_weights, d_biases = d_outputs, [], []
    for layer in range(last, -1, -1):
        d_weight = d @ a[layer].t()
        if t and layer == last:
            d_weight[0] += t[layer].sum(1)
        elif t:
            d_weight += (slopes[layer] * tau[layer + 1]) @ t[layer].t()
        d_weights.insert(0, d_weight)
        d_biases.insert(0, d.sum(1))
        d = weights[layer].t() @ d
        if layer:
            d = d * slopes[layer - 1]
            if t and activation == "softplus":  # phi'' q = beta (1 - phi') t
                d += reference.SOFTPLUS_BETA * (1 - slopes[layer - 1]) * t[layer] * tau[layer]
    return d, d_weights, d_biases


def _push_to_features(jacobian: Tensor, u: Tensor) -> Tensor:
    """J u, [features, N]; a kernel of the GPU alone."""
    tangent = u.new_empty(len(jacobian), u.shape[1])
    call("push_to_features", len(jacobian), u.shape[1], jacobian, u, tangent)
    return tangent
