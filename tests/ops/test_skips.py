"""Laws of networks whose backward pass leaves rows out."""

import pytest
import torch

from models import ops
from models.ops.skips import _reference


def layers(n_inputs: int, n_rows: int, skips: set[int]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    torch.manual_seed(0)
    widths = [7, 5, 5, 6]
    n_seen = [n_inputs, *(before + n_inputs * (row in skips) for row, before in enumerate(widths[:-1], 1))]
    weights = [torch.randn(n_out, n_in, requires_grad=True) for n_out, n_in in zip(widths, n_seen, strict=True)]
    # One addend differs by row, as that of a code does.
    shapes = [(n_rows, 7), (5,), (5,), (6,)]
    return weights, [torch.randn(*shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("n_inputs", [3, 0])
@pytest.mark.parametrize("skips", [set(), {2}, {1, 3}])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_gradients_are_those_of_all_rows(n_inputs, skips, share):
    n_rows = 40
    weights, addends = layers(n_inputs, n_rows, skips)
    x = torch.randn(n_rows, n_inputs, requires_grad=True)
    upstream = torch.randn(n_rows, 6) * (torch.arange(n_rows) < share * n_rows)[:, None]
    inputs = [x, *weights, *addends]
    expected = _reference(frozenset(skips), x, *(one for pair in zip(weights, addends, strict=True) for one in pair))
    found = ops.skip_network(x, weights, addends, skips)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    ours, theirs = (torch.autograd.grad((one * upstream).sum(), inputs) for one in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_no_rows_have_no_gradient():
    weights, addends = layers(3, 0, {2})
    found = ops.skip_network(torch.zeros(0, 3), weights, addends, {2})
    assert found.shape == (0, 6)
    assert all((one == 0).all() for one in torch.autograd.grad(found.sum(), [*weights, *addends]))


def test_second_derivatives_are_refused():
    weights, addends = layers(3, 4, set())
    x = torch.randn(4, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(ops.skip_network(x, weights, addends, set()).sum(), x, create_graph=True)
