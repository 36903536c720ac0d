"""Laws of the benchmark of NeRF iterations."""

import pytest
import torch

from models.fields.implicit import Sizes
from models.fields.nerf_mlp import NerfMLP
from scripts import bench_nerf_mlp
from scripts.bench.plain_nerf import PlainNerf
from tests.models.small import rays_of
from utils.types import Context, RayPoints


def test_the_plain_network_is_the_same_function_with_the_same_gradients() -> None:
    torch.manual_seed(0)
    function = NerfMLP(NerfMLP.Config(n_hidden_neurons_xyz=32, n_hidden_neurons_dir=16), Sizes())
    rays, points = rays_of(20), RayPoints(torch.rand(20, 7).sort(dim=1).values)
    ours, plain = (one(rays, points, Context()) for one in (function, PlainNerf(function)))
    torch.testing.assert_close(ours.density, plain.density, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.feature, plain.feature, atol=1e-5, rtol=1e-5)
    # Half of the points are in nothing and teach nothing.
    weight = torch.randn(20, 7) * (torch.arange(7) > 3)
    found, expected = (
        torch.autograd.grad((weight * (one.density + one.feature.sum(-1))).sum(), list(function.parameters()))
        for one in (ours, plain)
    )
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-5 * max(1, other.abs().max())


def test_both_ways_take_turns_and_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_nerf_mlp.main(["--rays", "4", "--width", "8", "--rounds", "1", "--start", "1"]) == 0
    said = capsys.readouterr().out
    assert "colours are at most" in said and "4 rays, step 1" in said and "median ratio" in said
