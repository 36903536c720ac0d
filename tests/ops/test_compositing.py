"""Packed compositing and distortion against a slow loop over samples, for both backends."""

import pytest
import torch

from models import ops
from models.ops import native
from tests.ops.cases import assert_close, gradients, leaves

BACKENDS = [("native", torch.float32), ("reference", torch.float64)]


@pytest.fixture(autouse=True, params=BACKENDS, ids=["native", "reference"])
def implementation(request):
    """Backend and precision under test."""
    torch.manual_seed(0)
    if request.param[0] == "native" and native.obstacle():
        pytest.skip(f"no kernels to test: {native.obstacle()}")
    return request.param


def random_rays(n_rays, longest):
    """Offsets of rays with 0 to `longest` samples each."""
    counts = torch.randint(longest + 1, (n_rays,))
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])


def slow_composite(alpha, values, offsets):
    weights, sums = [], []
    for start, end in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
        transmittance, total = torch.ones(()).double(), torch.zeros(len(values)).double()
        for i in range(start, end):
            weights.append(transmittance * alpha[i])
            total = total + weights[-1] * values[:, i]
            transmittance = transmittance * (1 - alpha[i])
        sums.append(total)
    return torch.stack(weights), torch.stack(sums, 1)


def test_weights_sums_and_gradients_are_those_of_the_loop(implementation):
    backend, dtype = implementation
    offsets = random_rays(40, 9)
    n = int(offsets[-1])
    alpha, values = torch.rand(n), torch.randn(3, n)
    alpha[::7], alpha[3::11] = 1.0, 0.0  # opaque samples hide what follows, but moving them would reveal it
    d_weights, d_sums = torch.randn(n), torch.randn(3, 40)
    results = []
    for run, kind in ((lambda a, v: ops.composite(a, v, offsets, backend), dtype), (slow_loop(offsets), torch.float64)):
        parameters = leaves([alpha, values], kind)
        weights, sums = run(*parameters)
        torch.autograd.backward([weights, sums], [d_weights.to(kind), d_sums.to(kind)])
        results.append([weights.detach(), sums.detach(), *gradients(parameters)])
    for fast, slow in zip(*results, strict=True):
        assert_close(fast, slow, 1e-6)


def slow_loop(offsets):
    return lambda alpha, values: slow_composite(alpha, values, offsets)


def test_weights_of_a_ray_sum_to_its_opacity(implementation):
    backend, dtype = implementation
    offsets = torch.tensor([0, 1000, 1003])
    alpha = torch.rand(1003).to(dtype) * 0.01
    weights, sums = ops.composite(alpha, torch.ones(1, 1003).to(dtype), offsets, backend)
    expected = 1 - torch.stack([(1 - a).prod() for a in alpha.double().split([1000, 3])])
    assert_close(sums[0], expected, 1e-6)
    assert_close(torch.stack([w.sum() for w in weights.double().split([1000, 3])]), expected, 1e-6)


def test_an_opaque_wall_is_seen_at_its_distance(implementation):
    backend, dtype = implementation
    alpha, t = torch.tensor([0, 0, 1, 0.5]).to(dtype), torch.tensor([[1, 2, 3, 4]]).to(dtype)
    _, depth = ops.composite(alpha, t, torch.tensor([0, 4]), backend)
    assert depth.item() == 3


@pytest.mark.parametrize("offsets", [[0], [0, 0], [0, 0, 0, 0]])
def test_no_samples_give_zero_and_no_error(implementation, offsets):
    backend, dtype = implementation
    alpha, values = leaves([torch.zeros(0), torch.zeros(2, 0)], dtype)
    weights, sums = ops.composite(alpha, values, torch.tensor(offsets), backend)
    spread = ops.distortion(weights, torch.zeros(0).to(dtype), torch.zeros(0).to(dtype), torch.tensor(offsets), backend)
    (sums.sum() + spread.sum()).backward()
    assert sums.shape == (2, len(offsets) - 1) and spread.shape == (len(offsets) - 1,)
    assert not sums.any() and not spread.any() and alpha.grad.shape == (0,)


@pytest.mark.parametrize("offsets", [[], [0, 2], [1, 3], [0, 2, 1, 3], [0, 5]])
def test_offsets_that_do_not_fit_the_samples_are_refused(implementation, offsets):
    backend, dtype = implementation
    offsets = torch.tensor(offsets, dtype=torch.int64)
    with pytest.raises(ValueError, match="offsets must rise from 0 to 3"):
        ops.composite(torch.rand(3).to(dtype), torch.rand(1, 3).to(dtype), offsets, backend)
    with pytest.raises(ValueError, match="offsets must rise from 0 to 3"):
        ops.distortion(*torch.rand(3, 3).to(dtype), offsets, backend)


def test_distortion_is_the_sum_over_all_pairs(implementation):
    backend, dtype = implementation
    offsets = random_rays(20, 12)
    n = int(offsets[-1])
    weights, width, d_spread = torch.rand(n), torch.rand(n), torch.randn(20)
    t = torch.cat([torch.rand(c).sort().values for c in offsets.diff().tolist()])
    (w,) = leaves([weights], dtype)
    spread = ops.distortion(w, t.to(dtype), width.to(dtype), offsets, backend)
    spread.backward(d_spread.to(dtype))

    (w_slow,) = leaves([weights], torch.float64)
    expected = []
    for start, end in zip(offsets.tolist(), offsets.tolist()[1:], strict=False):
        a, s, d = w_slow[start:end], t[start:end].double(), width[start:end].double()
        expected.append((a[:, None] * a * (s[:, None] - s).abs()).sum() + (a * a * d).sum() / 3)
    torch.stack(expected).backward(d_spread.double())
    assert_close(spread.detach(), torch.stack(expected).detach(), 1e-6)
    assert_close(w.grad, w_slow.grad, 1e-5)
