"""Hash grids and small perceptrons by tiny-cuda-nn (Mueller 2021), for those who name it; CUDA only.

Parameters stay ours, so checkpoints do not depend on the backend: its modules are called with our numbers in its
order. It computes in half precision, and within half a cell of the cube's far faces its dense levels read a vertex of
the row after. Derivatives by positions are its own, first order.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from models.ops import reference
from models.ops.dispatch import package
from models.ops.layout import GridLayout
from utils.registry import ConfigError

FEATURES = (1, 2, 4, 8)
FUSED_WIDTHS = (16, 32, 64, 128)
ALIGNMENT = 16  # rows and columns of its matrices are padded to multiples of it
ACTIVATIONS = {"none": "None", "relu": "ReLU", "sigmoid": "Sigmoid"}


def encode(x: Tensor, table: Tensor, layout: GridLayout, n_active: int) -> Tensor:
    """`hash_grid.encode`.

    Raises:
        ConfigError: tiny-cuda-nn is missing or lays the grid out in a way that we do not foresee.
    """
    tcnn = package("tinycudann", "encode", x)
    if layout.n_features not in FEATURES:
        raise ConfigError(f"backend of encode is tinycudann, which has 1, 2, 4 or 8 features, not {layout.n_features}")
    silent = x.new_zeros((layout.n_levels - n_active) * layout.n_features, x.shape[1])
    if not n_active:
        return silent
    encoding, keys = _encoding(tcnn, layout, n_active), _keys(layout, n_active, str(table.device))
    entries = [
        part if key is None else part.index_select(0, key)
        for part, key in zip(table.split(_sizes(layout)), keys, strict=False)
    ]
    parameters = torch.cat(entries).flatten()
    if parameters.numel() != encoding.params.numel():
        raise ConfigError(
            f"backend of encode is tinycudann, which stores {encoding.params.numel()} numbers of {layout}, not the "
            f"expected {parameters.numel()}; use backend auto"
        )
    return torch.cat([_call(encoding, parameters, x.clamp(0, 1)), silent])


def mlp(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    output_activation: str,
) -> Tensor:
    """`networks.mlp`, for hidden layers of one width, ReLU and no biases.

    Raises:
        ConfigError: tiny-cuda-nn is missing or has no such network.
    """
    tcnn = package("tinycudann", "mlp", x)
    width, n_hidden = len(weights[0]), len(weights) - 1
    hidden = {len(weight) for weight in weights[:-1]}
    if activation != "relu" or any(bias is not None for bias in biases) or hidden not in [{n} for n in FUSED_WIDTHS]:
        raise ConfigError(
            f"backend of mlp is tinycudann, which has hidden layers of one width in {FUSED_WIDTHS} with ReLU and no "
            f"biases, not {activation} with widths {sorted(hidden)}; use otype FullyFusedMLP, or backend auto"
        )
    network = _network(tcnn, x.shape[0], len(weights[-1]), width, n_hidden, ACTIVATIONS[output_activation])
    padded = [_pad(weights[0], 1), *weights[1:-1], _pad(weights[-1], 0)]
    return _call(network, torch.cat([weight.flatten() for weight in padded]), x)


def _call(module: Any, parameters: Tensor, x: Tensor) -> Tensor:
    """A module of [N, inputs] as a function of our parameters and [inputs, N]."""
    n = x.shape[1]
    rows = x.t() if n else x.new_zeros(1, len(x))  # it takes no empty batch
    return functional_call(module, {"params": parameters}, (rows,))[:n].t().to(x.dtype)


def _pad(weight: Tensor, axis: int) -> Tensor:
    """Zeros after the last rows (axis 0) or columns (axis 1)."""
    missing = -weight.shape[axis] % ALIGNMENT
    return functional.pad(weight, (0, missing) if axis else (0, 0, 0, missing))


@cache
def _encoding(tcnn: Any, layout: GridLayout, n_levels: int) -> Any:
    """Its module of the first levels; the parameters that come with it are never used."""
    config = {
        "otype": "HashGrid",
        "n_levels": n_levels,
        "n_features_per_level": layout.n_features,
        "log2_hashmap_size": layout.log2_hashmap_size,
        "base_resolution": layout.base_resolution,
        "per_level_scale": layout.per_level_scale,
    }
    return tcnn.Encoding(3, config)


@cache
def _network(tcnn: Any, n_inputs: int, n_outputs: int, width: int, n_hidden: int, output_activation: str) -> Any:
    config = {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": output_activation,
        "n_neurons": width,
        "n_hidden_layers": n_hidden,
    }
    return tcnn.Network(n_inputs, n_outputs, config)


def _sizes(layout: GridLayout) -> list[int]:
    return [after - before for before, after in zip(layout.offsets, layout.offsets[1:], strict=False)]


@cache
def _keys(layout: GridLayout, n_active: int, device: str) -> list[Tensor | None]:
    """For each level which of our entries each of its entries is; None where the order is the same.

    It has one vertex less along an axis of a dense level than we have, so that its rows are shorter and a level may be
    dense with it that is hashed with us.
    """
    keys: list[Tensor | None] = []
    for ours, is_dense in zip(layout.resolutions[:n_active], layout.is_dense, strict=False):
        theirs = ours - 1
        if theirs**3 > 2**layout.log2_hashmap_size:
            keys.append(None)
            continue
        vertex = torch.arange((theirs**3 + 7) // 8 * 8, device=device) % theirs**3
        x, y, z = vertex % theirs, vertex // theirs % theirs, vertex // theirs**2
        a, b, c = reference.HASH_PRIMES
        hashed = (x * a ^ y * b ^ z * c) & (2**layout.log2_hashmap_size - 1)
        keys.append(x + ours * (y + ours * z) if is_dense else hashed)
    return keys
