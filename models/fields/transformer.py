"""Attention over the source views of a point and over the points of a ray, in turns (Reizenstein et al. 2021, Common
Objects in 3D)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

N_HEADS = 4
"""Of every attention; widths have to be multiples of it."""


class ViewRayTransformer(nn.Module):
    """From what is known of every point in every view to a feature of the point.

    Each layer first lets the views of a point exchange what they know, then the points of a ray; in the end the views
    are averaged with weights that their first channel gives. All points of a ray have a say in each other's feature.

    Args:
        widths: of the layers, one more than there are layers.
        n_hidden: width of the feature, and of the networks after the attention.
        n_inputs: numbers that are known of a point in a view.
        skips: layers that see the input again.
    """

    def __init__(self, widths: list[int], n_hidden: int, n_inputs: int, skips: list[int]):
        super().__init__()
        self.first = nn.Linear(n_inputs, widths[0])
        self.again = nn.ModuleDict({str(layer): nn.Linear(n_inputs, widths[layer]) for layer in skips})
        self.over_views = nn.ModuleList(
            AttentionLayer(n_in, n_hidden, n_out) for n_in, n_out in zip(widths, widths[1:], strict=False)
        )
        self.over_points = nn.ModuleList(AttentionLayer(n_out, n_hidden, n_out) for n_out in widths[1:])
        self.last = nn.Linear(widths[-1], n_hidden)
        for linear in (self.first, *self.again.values(), self.last):
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, known: Sequence[Tensor]) -> Float[Tensor, "R P H"]:
        """The feature of every point.

        Args:
            known: parts of what is known, [R, S, P, ...] when broadcast together; their last sizes add up to n_inputs.
        """
        y = _linear_of(self.first, known)
        for index, (over_views, over_points) in enumerate(zip(self.over_views, self.over_points, strict=True)):
            if str(index) in self.again:
                y = y + _linear_of(self.again[str(index)], known)
            y = over_views(y.transpose(1, 2)).transpose(1, 2)
            y = over_points(y)
        share = torch.softmax(y[..., :1], dim=1)
        return self.last((share * y).sum(dim=1))


class AttentionLayer(nn.Module):
    """Attention of a sequence to itself, then a network for each of its members, normalised after each (Vaswani et al.
    2017). The network's output may be narrower than its input, whose first channels are then added to it."""

    def __init__(self, n_inputs: int, n_hidden: int, n_outputs: int):
        super().__init__()
        self.query_key_value = nn.Linear(n_inputs, 3 * n_inputs)
        self.attended = nn.Linear(n_inputs, n_inputs)
        self.norm_attention = nn.LayerNorm(n_inputs)
        self.hidden = nn.Linear(n_inputs, n_hidden)
        self.output = nn.Linear(n_hidden, n_outputs)
        self.norm_output = nn.LayerNorm(n_outputs)
        nn.init.xavier_uniform_(self.query_key_value.weight)

    def forward(self, x: Float[Tensor, "*B L I"]) -> Float[Tensor, "*B L O"]:
        x = self.norm_attention(x + self.attended(self._attention(x)))
        y = self.output(torch.relu(self.hidden(x)))
        return self.norm_output(x[..., : y.shape[-1]] + y)

    def _attention(self, x: Float[Tensor, "*B L I"]) -> Float[Tensor, "*B L I"]:
        heads = self.query_key_value(x).unflatten(-1, (3, N_HEADS, -1)).movedim(-3, 0).transpose(-2, -3)
        query, key, value = heads  # [*B, N_HEADS, L, I / N_HEADS]
        return F.scaled_dot_product_attention(query, key, value).transpose(-2, -3).flatten(-2)


def _linear_of(linear: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """`linear` of the parts laid side by side; each is multiplied in its own shape, not once for all that share it."""
    assert isinstance(linear, nn.Linear)
    weights = linear.weight.split([part.shape[-1] for part in parts], dim=1)
    return sum((F.linear(part, weight) for part, weight in zip(parts, weights, strict=True)), linear.bias)
