"""Deep networks with skips, as radiance fields have them, which do the least for points in empty space."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.ops.autograd import first_order_only

# Rows that are computed at once; activations of no more than these are kept for rows that count for nothing.
_BLOCK = 2048


class Gated(NamedTuple):
    """What a network says of N points.

    Attributes:
        gate: [N] output of the gate.
        hidden: [M, H] output of the last layer at the rows that count.
        rows: [M] which these are, ascending, or None for all.
    """

    gate: Float[Tensor, "N"]
    hidden: Float[Tensor, "M H"]
    rows: Int[Tensor, "M"] | None


def skip_network(
    x: Float[Tensor, "N I"],
    weights: Sequence[Float[Tensor, "_ _"]],
    addends: Sequence[Float[Tensor, "..."]],
    skips: Collection[int],
    gate: tuple[Float[Tensor, "1 H"], Float[Tensor, "1"]],
    only_positive: bool,
) -> Gated:
    """Rectified linear layers, some of which see the input again, h_l = relu(a_l + W_l [h_{l-1}, x]); and a gate, which
    is linear in the last of them.

    A point whose gate, its density, is not positive has no part in a picture. With `only_positive` such rows end there
    on a CPU, but for mixed precision: nothing of them is kept, and nothing flows back to them. What is left out is two
    thirds of the work, and in most scenes few points are in anything. A GPU would have to wait for the number of these
    rows.

    Args:
        x: input, with as few as 0 columns.
        weights: of each layer; the first sees x alone, those in `skips` what the layer before them gives, then x.
        addends: of each layer, [H] biases, or [N, H] where they differ by row.
        skips: layers, counted from 0, that see x again.
        gate: weight and bias.
        only_positive: whether rows with a gate of 0 or less count for nothing.

    Returns:
        The gate of all rows, the last layer of those that count.
    """
    layers = [part for layer in zip(weights, addends, strict=True) for part in layer]
    if only_positive and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return Gated(*_PositiveRows.apply(frozenset(skips), torch.is_grad_enabled(), x, *gate, *layers))
    hidden = _activations(skips, x, layers)[-1]
    return Gated(torch.nn.functional.linear(hidden, *gate)[:, 0], hidden, None)


def _activations(
    skips: Collection[int], x: Tensor, layers: Sequence[Tensor], into: Sequence[Tensor | None] | None = None
) -> list[Tensor]:
    """Of every layer; weights and addends take turns in `layers`."""
    found: list[Tensor] = []
    into = into or [None] * (len(layers) // 2)
    for row, (weight, total, out) in enumerate(zip(layers[::2], layers[1::2], into, strict=True)):
        n_before = found[-1].shape[1] if found else 0
        if row == 0 or row in skips:
            total = torch.addmm(total, x, weight[:, n_before:].T, out=out)
        if found:
            total = torch.addmm(total, found[-1], weight[:, :n_before].T, out=out)
        found.append(torch.relu_(total))
    return found


class _PositiveRows(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, skips: frozenset[int], learns: bool, x: Tensor, weight: Tensor, bias: Tensor, *layers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(x)
        into = [x.new_empty(min(n, _BLOCK), one.shape[0]) for one in layers[::2]]
        gate, rows = x.new_empty(n), []
        kept: list[list[Tensor]] = [[] for _ in (into if learns else into[-1:])]
        # No rows are one empty block.
        for start in range(0, max(n, 1), _BLOCK):
            block = slice(start, min(start + _BLOCK, n))
            of_block = [part[block] if row % 2 and part.dim() == 2 else part for row, part in enumerate(layers)]
            found = _activations(skips, x[block], of_block, [one[: block.stop - start] for one in into])
            torch.addmv(bias, found[-1], weight[0], out=gate[block])
            positive = (gate[block] > 0).nonzero()[:, 0]
            rows.append(positive + start)
            for layer, one in zip(kept, found[-len(kept) :], strict=True):
                layer.append(one.index_select(0, positive))
        picked, hidden = torch.cat(rows), [torch.cat(layer) for layer in kept]
        ctx.skips = skips
        ctx.save_for_backward(picked, x, weight, *layers, *hidden)
        ctx.mark_non_differentiable(picked)
        return gate, hidden[-1], picked

    @staticmethod
    @first_order_only
    def backward(ctx: Any, of_gate: Tensor, of_hidden: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, x, gate_weight, *saved = ctx.saved_tensors
        n_layers = len(saved) // 3
        layers, found = saved[: 2 * n_layers], saved[2 * n_layers :]
        of_gate, x_rows = of_gate.index_select(0, rows), x.index_select(0, rows)
        gradient = torch.addr(of_hidden, of_gate, gate_weight[0])
        of_x = torch.zeros_like(x_rows) if ctx.needs_input_grad[2] else None
        of_layers: list[Tensor] = []
        for row in reversed(range(n_layers)):
            weight, addend = layers[2 * row : 2 * row + 2]
            gradient = torch.ops.aten.threshold_backward(gradient, found[row], 0)
            n_before = found[row - 1].shape[1] if row > 0 else 0
            seen = [found[row - 1]] if row > 0 else []
            if row == 0 or row in ctx.skips:
                seen.append(x_rows)
                if of_x is not None:
                    of_x.addmm_(gradient, weight[:, n_before:])
            of_addend = gradient.sum(0) if addend.dim() == 1 else _spread(gradient, rows, len(x))
            of_layers += [of_addend, torch.cat([gradient.T @ part for part in seen], dim=1)]
            if row > 0:
                gradient = gradient @ weight[:, :n_before]
        of_gate_weight = (of_gate @ found[-1])[None]
        of_x = None if of_x is None else _spread(of_x, rows, len(x))
        return None, None, of_x, of_gate_weight, of_gate.sum(0, keepdim=True), *reversed(of_layers)


def _spread(values: Tensor, rows: Tensor, n: int) -> Tensor:
    return values.new_zeros(n, values.shape[1]).index_copy_(0, rows, values)
