"""Deep networks with skips, as radiance fields have them; going backwards, points that teach nothing are left out."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.ops.autograd import first_order_only

# Share of rows from which on picking them costs more than it saves.
_MOST = 0.7


def skip_network(
    x: Float[Tensor, "N I"],
    weights: Sequence[Float[Tensor, "_ _"]],
    addends: Sequence[Float[Tensor, "..."]],
    skips: Collection[int],
) -> Float[Tensor, "N H"]:
    """Rectified linear layers, some of which see the input again: h_l = relu(a_l + W_l [h_{l-1}, x]).

    Points in empty space, whose raw density is negative, have no part in a picture, and their gradient is exactly zero.
    On a CPU, and but for mixed precision, the backward pass is computed for the other rows only. That is two thirds of
    the work, and in most scenes few points are in anything. A GPU would have to wait for the number of these rows.

    Args:
        x: input, with as few as 0 columns.
        weights: of each layer; the first sees x alone, those in `skips` what the layer before them gives, then x.
        addends: of each layer, [H] biases, or [N, H] where they differ by row.
        skips: layers, counted from 0, that see x again.
    """
    network = _reference
    if torch.is_grad_enabled() and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        network = _RowsThatMatter.apply
    return network(frozenset(skips), x, *(part for layer in zip(weights, addends, strict=True) for part in layer))


def _reference(skips: frozenset[int], x: Tensor, *layers: Tensor) -> Tensor:
    return _activations(skips, x, layers)[-1]


def _activations(skips: frozenset[int], x: Tensor, layers: Sequence[Tensor]) -> list[Tensor]:
    """Of every layer; weights and addends take turns in `layers`."""
    found: list[Tensor] = []
    for row, (weight, total) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
        n_before = found[-1].shape[1] if found else 0
        if row == 0 or row in skips:
            total = torch.addmm(total, x, weight[:, n_before:].T)
        if found:
            total = torch.addmm(total, found[-1], weight[:, :n_before].T)
        found.append(torch.relu_(total))
    return found


class _RowsThatMatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, skips: frozenset[int], x: Tensor, *layers: Tensor) -> Tensor:  # type: ignore[override]
        found = _activations(skips, x, layers)
        ctx.skips = skips
        ctx.save_for_backward(x, *layers, *found)
        return found[-1]

    @staticmethod
    @first_order_only
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, *saved = ctx.saved_tensors
        n_layers = len(saved) // 3
        layers, found = saved[: 2 * n_layers], saved[2 * n_layers :]
        rows: Tensor | None = upstream.any(dim=1).nonzero()[:, 0]
        if len(rows) > _MOST * len(upstream):
            rows = None
        gradient, x_rows = _picked(upstream, rows), _picked(x, rows)
        of_x = torch.zeros_like(x_rows) if ctx.needs_input_grad[1] else None
        of_layers: list[Tensor] = []
        for row in reversed(range(n_layers)):
            weight, addend = layers[2 * row : 2 * row + 2]
            gradient = torch.ops.aten.threshold_backward(gradient, _picked(found[row], rows), 0)
            n_before = found[row - 1].shape[1] if row > 0 else 0
            seen = [_picked(found[row - 1], rows)] if row > 0 else []
            if row == 0 or row in ctx.skips:
                seen.append(x_rows)
                if of_x is not None:
                    of_x.addmm_(gradient, weight[:, n_before:])
            of_addend = gradient.sum(0) if addend.dim() == 1 else _spread(gradient, rows, len(x))
            of_layers += [of_addend, torch.cat([gradient.T @ part for part in seen], dim=1)]
            if row > 0:
                gradient = gradient @ weight[:, :n_before]
        return None, None if of_x is None else _spread(of_x, rows, len(x)), *reversed(of_layers)


def _picked(values: Tensor, rows: Tensor | None) -> Tensor:
    return values if rows is None else values.index_select(0, rows)


def _spread(values: Tensor, rows: Tensor | None, n: int) -> Tensor:
    return values if rows is None else values.new_zeros(n, values.shape[1]).index_copy_(0, rows, values)
