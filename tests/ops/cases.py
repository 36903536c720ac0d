"""Random inputs for the operations, and how close is close."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.ops import GridLayout


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Largest difference, relative to the largest expected number."""
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual.double() - expected.double()).abs().max()
        assert error <= tolerance * expected.double().abs().max().clamp(min=1e-6), float(error)


def points_inside_cells(n: int, layout: GridLayout) -> Tensor:
    """[3, n] points away from the faces of every level's cells, where the Jacobian jumps."""
    candidates = torch.rand(3, 64 * n + 64)
    is_inside = torch.ones(candidates.shape[1], dtype=torch.bool)
    for scale in layout.scales:
        fraction = (candidates * scale + 0.5) % 1
        is_inside &= ((fraction > 0.01) & (fraction < 0.99)).all(0)
    assert is_inside.sum() >= n
    return candidates[:, is_inside][:, :n].contiguous()


@dataclass
class FieldCase:
    """A field of a given shape with random parameters.

    Attributes:
        levels, features: of its grid, coarse enough for float32 to find the same cells as float64.
        hidden: widths of hidden layers.
        has_biases: whether layers have biases; if so, the last has none, to see that mixed.
    """

    levels: int
    features: int
    hidden: tuple[int, ...]
    activation: str
    has_biases: bool = True
    n_active: int | None = None
    include_xyz: bool = True
    outputs: int = 5

    def layout(self) -> GridLayout:
        return GridLayout(self.levels, self.features, 10, 4, 1.2)

    def parameters(self) -> tuple[Tensor, list[Tensor], list[Tensor | None]]:
        """Table, weights and biases, float64 numbers that float32 holds exactly."""
        layout = self.layout()
        widths = [layout.n_outputs + 3 * self.include_xyz, *self.hidden, self.outputs]
        weights = [torch.randn(n, m) / m**0.5 for m, n in zip(widths, widths[1:], strict=False)]
        biases: list[Tensor | None] = [torch.randn(n) * 0.1 if self.has_biases else None for n in widths[1:]]
        biases[-1] = None
        table = torch.rand(layout.n_entries, layout.n_features) - 0.5
        return table.double(), [w.double() for w in weights], [b if b is None else b.double() for b in biases]


def leaves(tensors: list[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    """Copies that gather gradients."""
    return [None if t is None else t.detach().clone().to(dtype).requires_grad_() for t in tensors]


def gradients(tensors: list[Tensor | None]) -> list[Tensor]:
    """Gathered gradients, zero where a result did not depend on a tensor."""
    return [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors if t is not None]
