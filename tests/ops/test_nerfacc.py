"""The nerfacc backend against a stand-in with the calling conventions of nerfacc 0.5."""

import sys
import types

import pytest
import torch
from torch.nn.functional import normalize

from models import ops
from models.ops import dispatch
from tests.ops.cases import assert_close, gradients, leaves
from utils.registry import ConfigError


def traverse_grids(
    rays_o,
    rays_d,
    binaries,
    aabbs,
    near_planes=None,
    far_planes=None,
    step_size=1e-3,
    cone_angle=0.0,
    traverse_steps_limit=None,
    over_allocate=False,
):
    """Edges of intervals, shared where one begins as another ends, and their midpoints; indexed [level, x, y, z]."""
    assert binaries.dtype == torch.bool and binaries.shape[0] == 1 and aabbs.shape == (1, 6) and cone_angle == 0
    low, high = aabbs[0, :3], aabbs[0, 3:]
    size = torch.tensor(binaries.shape[1:])
    edges, is_left, is_right, middles, rays = [], [], [], [], []
    for r in range(len(rays_o)):
        t, is_open = near_planes[r], False
        while t + step_size / 2 < far_planes[r]:
            middle = t + step_size / 2
            cell = ((rays_o[r] + middle * rays_d[r] - low) / (high - low) * size).long().clamp(min=0)
            x, y, z = torch.minimum(cell, size - 1)
            if binaries[0, x, y, z]:
                if is_open:
                    is_left[-1] = True
                else:
                    edges, is_left, is_right = [*edges, t], [*is_left, True], [*is_right, False]
                edges, is_left, is_right = [*edges, t + step_size], [*is_left, False], [*is_right, True]
                middles.append(middle)
                rays.append(r)
            is_open = bool(binaries[0, x, y, z])
            t = t + step_size
    flags = [torch.tensor(flag, dtype=torch.bool) for flag in (is_left, is_right)]
    intervals = types.SimpleNamespace(vals=torch.tensor(edges), is_left=flags[0], is_right=flags[1])
    samples = types.SimpleNamespace(vals=torch.tensor(middles), ray_indices=torch.tensor(rays, dtype=torch.int64))
    return intervals, samples, None


def render_weight_from_alpha(alphas, packed_info=None, ray_indices=None, n_rays=None, prefix_trans=None):
    assert alphas.shape == ray_indices.shape and ray_indices.dtype == torch.int64
    counts = torch.bincount(ray_indices, minlength=n_rays).tolist()
    transmittance = [torch.cat([a.new_ones(1), (1 - a).cumprod(0)])[:-1] for a in alphas.split(counts)]
    transmittance = torch.cat(transmittance)
    return transmittance * alphas, transmittance


def accumulate_along_rays(weights, values=None, ray_indices=None, n_rays=None):
    assert values.shape[:-1] == weights.shape
    return torch.zeros(n_rays, values.shape[1]).index_add(0, ray_indices, weights[:, None] * values)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    torch.manual_seed(0)
    package = types.ModuleType("nerfacc")
    package.__version__ = "0.5.3"
    for function in (traverse_grids, render_weight_from_alpha, accumulate_along_rays):
        setattr(package, function.__name__, function)
    monkeypatch.setitem(sys.modules, "nerfacc", package)
    monkeypatch.setattr(dispatch, "GPU", ("cuda", "cpu"))  # it believes to be on one
    return package


def march(backend, n=40, space="box", cone=0.0):
    torch.manual_seed(0)
    origins = normalize(torch.randn(n, 3), dim=1) * 3
    directions = normalize(torch.randn(n, 3) * 0.7 - origins, dim=1)
    grid = torch.multinomial(torch.tensor([0.6, 0.35, 0.05]), 6**3, replacement=True).view(6, 6, 6).to(torch.uint8)
    ranges = torch.zeros(n), torch.full((n,), 5.0)
    return ops.march(origins, directions, *ranges, grid, space, 1.0, 0.05, cone, torch.rand(n), backend=backend)


def test_marching_is_that_of_the_reference_up_to_the_first_solid_cell():
    actual, expected = march("nerfacc"), march("reference")
    assert len(expected[0]) > 100 and torch.equal(actual[3], expected[3]) and torch.equal(actual[2], expected[2])
    assert torch.allclose(actual[0], expected[0], atol=1e-5) and torch.allclose(actual[1], expected[1], atol=1e-5)


def test_no_rays_and_no_samples():
    assert march("nerfacc", n=0)[3].tolist() == [0]
    weights, sums = ops.composite(torch.zeros(0), torch.zeros(2, 0), torch.tensor([0, 0]), "nerfacc")
    assert len(weights) == 0 and sums.tolist() == [[0], [0]]


def test_compositing_is_that_of_the_reference():
    offsets = torch.tensor([0, 4, 4, 5, 9])
    alpha, values = torch.rand(9) * 0.9, torch.randn(3, 9)
    d_weights, d_sums = torch.randn(9), torch.randn(3, 4)
    results = []
    for backend in ("nerfacc", "reference"):
        parameters = leaves([alpha, values], torch.float32)
        weights, sums = ops.composite(*parameters, offsets, backend)
        torch.autograd.backward([weights, sums], [d_weights, d_sums])
        results.append([weights.detach(), sums.detach(), *gradients(parameters)])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, 1e-5)


def test_opacities_of_surfaces_are_made_for_it_as_it_makes_none(monkeypatch):
    monkeypatch.setattr(dispatch, "GPU", ("cuda",))
    numbers = torch.rand(9), -torch.rand(9), torch.rand(9), torch.tensor(5.0)
    expected = ops.neus_alpha(*numbers, backend="reference")
    assert torch.allclose(ops.neus_alpha(*numbers, backend="nerfacc"), expected, atol=1e-6)


@pytest.mark.parametrize(("space", "cone"), [("sphere", 0.0), ("box", 0.01)])
def test_marches_that_it_does_not_have_are_refused(space, cone):
    with pytest.raises(ConfigError, match=f"nerfacc, which has even steps in a box, not contraction {space}"):
        march("nerfacc", space=space, cone=cone)


def test_operations_that_it_does_not_have_are_refused():
    with pytest.raises(ConfigError, match="backend of distortion is nerfacc, which has no such operation"):
        ops.distortion(torch.rand(3), torch.rand(3), torch.rand(3), torch.tensor([0, 3]), "nerfacc")
    with pytest.raises(ConfigError, match="backend of spherical_harmonics is nerfacc"):
        ops.spherical_harmonics(torch.rand(3, 3), 2, "nerfacc")


def test_where_it_is_missing_or_another_version_the_command_is_told(installed, monkeypatch):
    installed.__version__ = "0.3.5"
    with pytest.raises(ConfigError, match="nerfacc, of which 0.3.5 is installed, but 0.5 is spoken here: pip install"):
        march("nerfacc")
    monkeypatch.setitem(sys.modules, "nerfacc", None)
    with pytest.raises(ConfigError, match="backend of march is nerfacc, which cannot be imported .* pip install"):
        march("nerfacc")


def test_on_a_cpu_it_is_refused(monkeypatch):
    monkeypatch.setattr(dispatch, "GPU", ("cuda",))
    with pytest.raises(ConfigError, match="nerfacc, which runs on CUDA only, not on cpu"):
        march("nerfacc")
