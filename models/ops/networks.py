"""Small multilayer perceptrons, alone or on top of a hash grid, with the closed-form gradient of a distance field."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from models.ops import closed_form, reference, tinycudann
from models.ops.dispatch import Backend, on_gpu, uses_native
from models.ops.hash_grid import active_levels, encode, grid_obstacle
from models.ops.layout import GridLayout
from models.ops.network_kernels import Field, FieldInputs, Mlp, Plan, SdfField, network_obstacle

Weights = Sequence[Float[Tensor, "_ _"]]
Biases = Sequence[Float[Tensor, "_"] | None]


def mlp(
    x: Float[Tensor, "I N"],
    weights: Weights,
    biases: Biases,
    activation: str,
    output_activation: str = "none",
    backend: Backend = "auto",
) -> Float[Tensor, "O N"]:
    """Fully connected network on feature-major activations.

    Args:
        x: [I, N] inputs.
        weights: one [out, in] matrix per layer, hidden layers first.
        biases: one [out] vector or None per layer.
        activation: of hidden layers, "relu" or "softplus" (sharpness 100).
        output_activation: "none", "relu" or "sigmoid".

    Returns:
        [O, N]. Differentiable once, by x (exactly, in every implementation), weights and biases. On a GPU under
        torch's autocast the products are of half precision.

    Raises:
        ValueError: shapes do not chain, or an activation is unknown.
    """
    _check_network(x.shape[0], weights, biases, activation, output_activation)
    if backend == "tinycudann":
        return tinycudann.mlp(x, weights, biases, activation, output_activation)
    if not uses_native("mlp", backend, _present(x, *weights, *biases), _size_obstacle(x, weights)):
        return reference.mlp(x, weights, biases, activation, output_activation)
    if on_gpu(x):
        return closed_form.mlp(x, weights, biases, activation, output_activation)
    plan = Plan(activation, output_activation)
    return Mlp.apply(plan, x, *weights, *biases)


def field(
    x: Float[Tensor, "3 N"],
    table: Float[Tensor, "entries F"],
    layout: GridLayout,
    weights: Weights,
    biases: Biases,
    activation: str,
    n_active: int | None = None,
    include_xyz: bool = True,
    backend: Backend = "auto",
) -> Float[Tensor, "O N"]:
    """A network of the hash encoding of points, and of the points themselves.

    Args:
        x: [3, N] points in the unit cube.
        table, layout, n_active: see `encode`. Columns of silent levels are not multiplied.
        weights, biases, activation: see `mlp`; the first matrix has `3 + L * F` columns, or `L * F` without xyz.
        include_xyz: puts `2 x - 1` before the features.

    Returns:
        [O, N] raw outputs. Differentiable once, by x (exactly, in every implementation), table, weights and biases.

    Raises:
        ValueError: table, n_active and weights do not fit each other, or the activation is unknown.
    """
    levels = active_levels(x, table, layout, n_active)
    _check_network(layout.n_outputs + 3 * include_xyz, weights, biases, activation)
    obstacle = grid_obstacle(layout) or _size_obstacle(x, weights)
    is_package = backend == "tinycudann"
    if not is_package and not uses_native("field", backend, _present(x, table, *weights, *biases), obstacle):
        return reference.field(x, table, layout, weights, biases, activation, levels, include_xyz)
    if is_package or on_gpu(x):
        features = encode(x, table, layout, levels, backend)[: levels * layout.n_features]
        inputs = torch.cat([2 * x - 1, features]) if include_xyz else features
        return mlp(inputs, [weights[0][:, : len(inputs)], *weights[1:]], biases, activation, backend=backend)
    plan = Plan(activation, "none")
    return Field.apply(plan, FieldInputs(layout, levels, 3 * include_xyz), x, table, *weights, *biases)


def sdf_field(
    x: Float[Tensor, "3 N"],
    table: Float[Tensor, "entries F"],
    layout: GridLayout,
    weights: Weights,
    biases: Biases,
    activation: str,
    n_active: int | None = None,
    include_xyz: bool = True,
    backend: Backend = "auto",
) -> tuple[Float[Tensor, "O N"], Float[Tensor, "3 N"]]:
    """`field` together with the gradient of its first output by position.

    The gradient is a closed form and an ordinary output: losses on it (eikonal, normals in colours) train through
    first-order autograd. It is in unit-cube coordinates: divide by the cube's side for world units. Arguments as for
    `field`.

    Returns:
        [O, N] raw outputs and [3, N] gradient. Differentiable once, by table, weights and biases; by the position x,
        exactly, in the reference alone: the kernels refuse, and "auto" turns to the reference.

    Raises:
        ValueError: as for `field`.
        RuntimeError: the native backend was asked for and x requires a gradient.
    """
    levels = active_levels(x, table, layout, n_active)
    _check_network(layout.n_outputs + 3 * include_xyz, weights, biases, activation)
    obstacle = grid_obstacle(layout) or _size_obstacle(x, weights)
    if _is_differentiated(x):
        obstacle = obstacle or "the kernel gives no gradient by position"
        if backend == "native":
            raise RuntimeError("the native sdf_field gives no gradient by x; detach x or use backend reference")
    if not uses_native("sdf_field", backend, _present(x, table, *weights, *biases), obstacle):
        return reference.sdf_field(x, table, layout, weights, biases, activation, levels, include_xyz)
    source = FieldInputs(layout, levels, 3 * include_xyz)
    if on_gpu(x):
        return closed_form.SdfField.apply(source, activation, x, table, *weights, *biases)
    return SdfField.apply(Plan(activation, "none"), source, x, table, *weights, *biases)


def _size_obstacle(x: Tensor, weights: Weights) -> str:
    """Why the kernels cannot take this network; matrix products on a GPU take any."""
    return "" if on_gpu(x) else network_obstacle(weights)


def _present(*tensors: Tensor | None) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


def _is_differentiated(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in _present(*tensors))


def _check_network(
    n_inputs: int, weights: Weights, biases: Biases, activation: str, output_activation: str = "none"
) -> None:
    """Raises ValueError unless the layers chain from `n_inputs` and the activations are known."""
    for given, known in ((activation, reference.ACTIVATIONS), (output_activation, reference.OUTPUT_ACTIVATIONS)):
        if given not in known:
            raise ValueError(f"network: activation is '{given}', expected one of {', '.join(known)}")
    if not weights or len(weights) != len(biases):
        raise ValueError(f"network: {len(weights)} weights and {len(biases)} biases, expected one of each per layer")
    width = n_inputs
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if weight.shape[1] != width or (bias is not None and len(bias) != len(weight)):
            raise ValueError(
                f"network: layer {layer} has weight {list(weight.shape)} and bias "
                f"{None if bias is None else list(bias.shape)}, expected {width} inputs and a bias per output"
            )
        width = weight.shape[0]
