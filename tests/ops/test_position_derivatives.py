"""Derivatives by positions: exact in the reference; exact or refused by the kernels, and never silently zero."""

import pytest
import torch

from models import ops
from models.ops import GridLayout, native
from tests.ops.cases import FieldCase, assert_close, points_inside_cells
from tests.ops.gpu import device_of
from utils.registry import ConfigError

CASE = FieldCase(3, 2, (8, 6), "softplus", outputs=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(params=["cpu", "sm_90", "gpu"])
def device(request, monkeypatch, folder):
    if request.param != "cpu":
        return device_of(request.param, monkeypatch, folder)
    if native.obstacle():
        pytest.skip(f"no kernels to test: {native.obstacle()}")
    return torch.device("cpu")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def field_arguments(dtype=torch.float64, device="cpu"):
    table, weights, biases = CASE.parameters()
    place = lambda t: None if t is None else t.to(device, dtype)  # noqa: E731
    return place(table), CASE.layout(), [*map(place, weights)], [*map(place, biases)], CASE.activation


def position(n=6, dtype=torch.float64, device="cpu"):
    return points_inside_cells(n, CASE.layout()).to(device, dtype).requires_grad_()


OPERATIONS = {
    "encode": lambda x, backend, table, layout, *_: ops.encode(x, table, layout, backend=backend),
    "encode_jacobian": lambda x, backend, table, layout, *_: ops.encode_jacobian(x, table, layout, backend=backend),
    "mlp": lambda x, backend, table, layout, *_: ops.mlp(
        x, [table[:4, :1] + x.new_ones(4, 3)], [None], "relu", "none", backend
    ),
    "field": lambda x, backend, *rest: ops.field(x, *rest, backend=backend),
    "sdf_field": lambda x, backend, *rest: ops.sdf_field(x, *rest, backend=backend),
    "spherical_harmonics": lambda x, backend, *_: ops.spherical_harmonics(x, 4, backend),
    "neus_alpha": lambda x, backend, *_: ops.neus_alpha(x[0], -x[1], x[2], x.new_tensor(3.0), backend),
}
EXACT_IN_KERNELS = {"encode", "mlp", "field"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_reference_is_exact(name):
    # Smaller than the distance to a cell's face, where the derivative jumps.
    rest = field_arguments()
    assert torch.autograd.gradcheck(lambda x: OPERATIONS[name](x, "reference", *rest), [position()], eps=1e-6)


@pytest.mark.parametrize("name", sorted(EXACT_IN_KERNELS))
def test_a_kernel_that_has_the_derivative_is_exact(name, device):
    gradients = []
    for backend, dtype, place in (("native", torch.float32, device), ("reference", torch.float64, "cpu")):
        torch.manual_seed(0)
        rest = field_arguments(dtype, place)
        x = position(100, dtype, place)
        OPERATIONS[name](x, backend, *rest).square().sum().backward()
        assert x.grad is not None
        gradients.append(x.grad.cpu())
    assert_close(*gradients, 1e-4)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - EXACT_IN_KERNELS))
def test_a_kernel_without_it_refuses_and_auto_turns_to_the_reference(name, device):
    rest, x = field_arguments(torch.float32, device), position(dtype=torch.float32, device=device)
    with pytest.raises((ConfigError, RuntimeError), match="gives no gradient|detach x"):
        OPERATIONS[name](x, "native", *rest)
    results = OPERATIONS[name](x, "auto", *rest)
    sum(result.square().sum() for result in (results if isinstance(results, tuple) else [results])).backward()
    assert x.grad is not None and bool((x.grad.abs().sum(1) > 0).all())
    with torch.no_grad():  # where nobody asks, the kernel runs
        OPERATIONS[name](x, "native", *rest)


def test_the_distances_and_widths_of_distortion_are_constants_and_asking_otherwise_is_an_error():
    weights, t, width, offsets = torch.rand(4), torch.rand(4), torch.rand(4), torch.tensor([0, 4])
    for moving in (t, width):
        moving.requires_grad_()
        with pytest.raises(RuntimeError, match="no gradient by t_mid and width; detach them"):
            ops.distortion(weights, t, width, offsets)
        moving.requires_grad_(False)


def test_opacities_and_values_carry_derivatives_through_compositing():
    alpha, values = torch.rand(7).double().requires_grad_(), torch.rand(2, 7).double().requires_grad_()
    offsets = torch.tensor([0, 3, 3, 7])
    assert torch.autograd.gradcheck(lambda a, v: ops.composite(a, v, offsets, "reference"), [alpha, values])


def test_intervals_move_with_their_ray():
    layout = GridLayout(1, 1, 8, 4, 1.0)
    origins = torch.tensor([[0.1, 0.2, -3.0]]).requires_grad_()
    down = torch.tensor([[0.0, 0.0, 1.0]])
    grid = torch.ones(2, 2, 2, dtype=torch.uint8)
    start, end, ray, _ = ops.march(origins, down, *torch.tensor([[0.0], [9.0]]), grid, "box", 1.0, 0.5, 0.0, down[:, 0])
    assert not start.requires_grad
    points = origins[ray] + (0.5 * (start + end))[:, None] * down[ray]
    table = torch.rand(layout.n_entries, 1)
    ops.encode((points / 2 + 0.5).T, table, layout).sum().backward()
    assert origins.grad is not None and bool(origins.grad.any())
