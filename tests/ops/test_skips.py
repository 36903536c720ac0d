"""Laws of networks whose points in empty space end at the gate."""

import pytest
import torch

from models import ops
from models.ops import skips as module


def layers(n_inputs: int, n_rows: int, skips: set[int]):
    """Weights, addends and a gate."""
    torch.manual_seed(0)
    widths = [7, 5, 5, 6]
    n_seen = [n_inputs, *(before + n_inputs * (row in skips) for row, before in enumerate(widths[:-1], 1))]
    weights = [torch.randn(n_out, n_in, requires_grad=True) for n_out, n_in in zip(widths, n_seen, strict=True)]
    # One addend differs by row, as that of a code does.
    shapes = [(n_rows, 7), (5,), (5,), (6,)]
    gate = torch.randn(1, 6, requires_grad=True), torch.randn(1, requires_grad=True)
    return weights, [torch.randn(*shape, requires_grad=True) for shape in shapes], gate


@pytest.mark.parametrize("n_inputs", [3, 0])
@pytest.mark.parametrize("skips", [set(), {2}, {1, 3}])
@pytest.mark.parametrize("bias", [-100.0, -1.0, 0.0, 100.0])
def test_what_is_positive_is_as_in_the_whole_network(monkeypatch, n_inputs, skips, bias):
    n_rows = 40
    monkeypatch.setattr(module, "_BLOCK", 16)
    weights, addends, gate = layers(n_inputs, n_rows, skips)
    gate = gate[0], torch.full((1,), bias, requires_grad=True)
    x = torch.randn(n_rows, n_inputs, requires_grad=True)
    whole = ops.skip_network(x, weights, addends, skips, gate, only_positive=False)
    found = ops.skip_network(x, weights, addends, skips, gate, only_positive=True)
    assert whole.rows is None and found.rows is not None
    torch.testing.assert_close(found.gate, whole.gate)
    assert found.rows.tolist() == (whole.gate > 0).nonzero()[:, 0].tolist()
    torch.testing.assert_close(found.hidden, whole.hidden[found.rows])
    # A picture is a function of densities that are cut off at 0.
    of_gate, of_hidden = torch.randn(n_rows), torch.randn_like(found.hidden)
    inputs = [x, *weights, *addends, *gate]
    ours, theirs = (
        torch.autograd.grad((gated.relu() * of_gate).sum() + (hidden * of_hidden).sum(), inputs)
        for gated, hidden in ((found.gate, found.hidden), (whole.gate, whole.hidden[found.rows]))
    )
    torch.testing.assert_close(ours, theirs)


def test_nothing_is_kept_without_gradients():
    weights, addends, gate = layers(3, 50, {2})
    x = torch.randn(50, 3)
    learnt = ops.skip_network(x, weights, addends, {2}, gate, only_positive=True)
    with torch.no_grad():
        found = ops.skip_network(x, weights, addends, {2}, gate, only_positive=True)
    assert not found.hidden.requires_grad
    assert all(torch.equal(one, other) for one, other in zip(learnt, found, strict=True))


@pytest.mark.parametrize("only_positive", [False, True])
def test_no_rows_have_no_gradient(only_positive):
    weights, addends, gate = layers(3, 0, {2})
    found = ops.skip_network(torch.zeros(0, 3), weights, addends, {2}, gate, only_positive)
    assert found.gate.shape == (0,) and found.hidden.shape == (0, 6)
    of_all = torch.autograd.grad(found.gate.sum() + found.hidden.sum(), [*weights, *addends, *gate])
    assert all((one == 0).all() for one in of_all)


def test_second_derivatives_are_refused():
    weights, addends, gate = layers(3, 4, set())
    x = torch.randn(4, 3, requires_grad=True)
    found = ops.skip_network(x, weights, addends, set(), gate, only_positive=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(found.gate.sum(), x, create_graph=True)
