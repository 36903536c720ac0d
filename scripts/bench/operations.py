"""Every operation of `models.ops` beside other ways to compute the same."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from models import ops
from models.ops import GridLayout
from models.ops.dispatch import Backend
from scripts.bench import others, plain
from scripts.bench.candidates import BF16, OURS, PLAIN, REFERENCE, Candidate, Operation
from scripts.bench.inputs import RADIUS, STEP, Scene, make_scene
from scripts.bench.roofline import Accesses, Work

# Widths of the published networks; those of geometry and density follow their encoding.
GEOMETRY, DENSITY, COLOR = (64, 14), (64, 16), (35, 64, 64, 3)
CHANNELS = 5


@dataclass(frozen=True)
class Grid:
    """A hash grid's table and points in its cube, in both layouts."""

    layout: GridLayout
    table: Tensor  # [entries, F]
    x: Tensor  # [3, N]
    rows: Tensor  # [N, 3]

    @classmethod
    def make(cls, layout: GridLayout, x: Tensor) -> "Grid":
        table = (torch.rand(layout.n_entries, layout.n_features, device=x.device) - 0.5) * 0.1
        return cls(layout, table.requires_grad_(), x, x.t().contiguous())

    @cached_property
    def accesses(self) -> tuple[Accesses, ...]:
        """Eight corners of every point in every level."""
        tables = []
        for level, size in enumerate(plain.level_sizes(self.layout)):
            keys, _ = plain.corners(self.rows, self.layout, level)
            tables.append(Accesses(size, keys.t().flatten().int()))  # corner after corner of each point
        return tuple(tables)


def operations(layout: GridLayout, n: int, device: torch.device) -> Iterator[Operation]:
    """All of them, for `n` samples and the published networks."""
    torch.manual_seed(0)
    scene = make_scene(n, device)
    grid = Grid.make(layout, scene.x)
    yield from grid_operations(grid)
    yield from network_operations(grid)
    yield from ray_operations(scene)
    yield adam(layout, device)


def grid_operations(grid: Grid) -> Iterator[Operation]:
    layout, table, n = grid.layout, grid.table, grid.x.shape[1]

    def encoded(backend: Backend) -> Candidate:
        return Candidate(lambda: ops.encode(grid.x, table, layout, backend=backend), [table])

    trained = {
        OURS: encoded("auto"),
        REFERENCE: encoded("reference"),
        PLAIN: Candidate(lambda: plain.encode(grid.rows, table, layout), [table]),
        **others.tinycudann_encoding(layout, grid.rows),
    }
    n_outputs = n * layout.n_outputs
    yield Operation("encode", n, _forward_only(trained), Work(grid.accesses, bytes_moved=4 * n_outputs))
    both = {
        OURS: Candidate(lambda: ops.encode_jacobian(grid.x, table, layout)),
        REFERENCE: Candidate(lambda: ops.encode_jacobian(grid.x, table, layout, backend="reference")),
    }
    yield Operation("encode with Jacobian", n, both, Work(grid.accesses, bytes_moved=16 * n_outputs))
    back = {name: replace(candidate, is_backward_only=True) for name, candidate in trained.items()}
    work = Work(updates=grid.accesses, bytes_moved=4 * (n_outputs + table.numel()))
    yield Operation("encode, backward to the table", n, back, work)


def distance_operation(grid: Grid) -> Operation:
    """A distance, its gradient and a feature, and the gradients by table and network from both."""
    n, device = grid.x.shape[1], grid.x.device
    weights, biases = _perceptron(3 + grid.layout.n_outputs, *GEOMETRY, device=device)
    leaves = [grid.table, *weights, *biases]

    def closed_form(backend: Backend) -> Candidate:
        arguments = grid.x, grid.table, grid.layout, weights, biases, "softplus"
        return Candidate(lambda: ops.sdf_field(*arguments, backend=backend), leaves)

    def encode(x: Tensor) -> Tensor:
        return plain.encode(x, grid.table, grid.layout)

    def double_backward() -> tuple[Tensor, Tensor]:
        return plain.distance_field(grid.rows, encode, weights, biases, "softplus")

    candidates = {
        OURS: closed_form("auto"),
        REFERENCE: closed_form("reference"),
        PLAIN: Candidate(double_backward, leaves),
        **others.tinycudann_distance(grid.layout, grid.rows, weights, biases),
    }
    # The first layer works in value, gradient and both of their derivatives, the second in value and derivative.
    first, last = weights[0].numel(), weights[1].numel()
    work = Work(grid.accesses, grid.accesses, n * (6 * first + 3 * last), 4 * grid.table.numel())
    return Operation("SDF, gradient, full backward", n, candidates, work)


def network_operations(grid: Grid) -> Iterator[Operation]:
    n, device = grid.x.shape[1], grid.x.device
    yield distance_operation(grid)

    widths = grid.layout.n_outputs, *DENSITY
    weights, _ = _perceptron(*widths, device=device)
    none = [None] * len(weights)

    def density(backend: Backend) -> Candidate:
        arguments = grid.x, grid.table, grid.layout, weights, none, "relu"
        return Candidate(lambda: ops.field(*arguments, include_xyz=False, backend=backend), [grid.table, *weights])

    def plain_density() -> Tensor:
        return plain.perceptron(plain.encode(grid.rows, grid.table, grid.layout), weights, none, "relu")

    candidates = {
        OURS: density("auto"),
        REFERENCE: density("reference"),
        PLAIN: Candidate(plain_density, [grid.table, *weights]),
        **others.tinycudann_density(grid.layout, grid.rows, widths),
    }
    products = n * sum(weight.numel() for weight in weights)
    work = Work(grid.accesses, grid.accesses, 3 * products, 4 * grid.table.numel())
    yield Operation("density network, forward and backward", n, candidates, work)
    work = Work(grid.accesses, multiply_adds=products)
    yield Operation("density network, forward", n, _forward_only(candidates), work)
    yield color_operation(n, device)


def color_operation(n: int, device: torch.device) -> Operation:
    inputs = torch.randn(COLOR[0], n, device=device, requires_grad=True)
    rows = inputs.detach().t().contiguous().requires_grad_()
    weights, biases = _perceptron(*COLOR, device=device)

    def feature_major(backend: Backend) -> Candidate:
        arguments = inputs, weights, biases, "relu", "sigmoid", backend
        return Candidate(lambda: ops.mlp(*arguments), [inputs, *weights, *biases])

    def row_major() -> Tensor:
        return plain.perceptron(rows, weights, biases, "relu", "sigmoid")

    def half() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return row_major()

    candidates = {
        OURS: feature_major("auto"),
        REFERENCE: feature_major("reference"),
        PLAIN: Candidate(row_major, [rows, *weights, *biases]),
        BF16: Candidate(half, [rows, *weights, *biases]),
        **others.tinycudann_color(rows, COLOR),
    }
    work = Work(multiply_adds=3 * n * sum(weight.numel() for weight in weights))
    return Operation("colour network, forward and backward", n, candidates, work)


def ray_operations(scene: Scene) -> Iterator[Operation]:
    n, device = len(scene.ray), scene.x.device
    directions = scene.directions[scene.ray].t().contiguous()

    def harmonics(backend: Backend) -> Candidate:
        return Candidate(lambda: ops.spherical_harmonics(directions, 4, backend))

    candidates = {
        OURS: harmonics("auto"),
        REFERENCE: harmonics("reference"),
        **others.tinycudann_harmonics(directions.t().contiguous()),
    }
    yield Operation("spherical harmonics", n, candidates, Work(bytes_moved=4 * 19 * n))
    yield march_operation(scene)
    yield composite_operation(scene)

    sdf, slope = (tensor.clone().requires_grad_() for tensor in (scene.sdf, scene.slope))
    sharpness = torch.tensor(200.0, device=device, requires_grad=True)
    arguments, leaves = (sdf, slope, scene.width, sharpness), [sdf, slope, sharpness]
    candidates = {
        OURS: Candidate(lambda: ops.neus_alpha(*arguments), leaves),
        REFERENCE: Candidate(lambda: ops.neus_alpha(*arguments, backend="reference"), leaves),
        PLAIN: Candidate(lambda: plain.neus_alpha(*arguments), leaves),
    }
    yield Operation("NeuS opacity, forward and backward", n, candidates, Work(bytes_moved=4 * 10 * n))


def march_operation(scene: Scene) -> Operation:
    n_rays, device = scene.n_rays, scene.x.device
    near, far = torch.zeros(n_rays, device=device), torch.full((n_rays,), 9.0, device=device)
    jitter, gaps = torch.rand(n_rays, device=device), ops.empty_gaps(scene.grid)

    def march(backend: Backend) -> Candidate:
        rays = scene.origins, scene.directions, near, far, scene.grid
        return Candidate(lambda: ops.march(*rays, "box", RADIUS, STEP, 0.0, jitter, backend, gaps))

    candidates = {OURS: march("auto"), REFERENCE: march("reference"), **others.nerfacc_march(scene)}
    return Operation(f"march, {n_rays:,} rays", len(scene.ray), candidates)


def composite_operation(scene: Scene) -> Operation:
    n, device = len(scene.ray), scene.x.device
    alpha = (torch.rand(n, device=device) * 0.2).requires_grad_()
    values = torch.rand(CHANNELS, n, device=device, requires_grad=True)
    rows = values.detach().t().contiguous().requires_grad_()

    def feature_major(backend: Backend) -> Candidate:
        return Candidate(lambda: ops.composite(alpha, values, scene.offsets, backend), [alpha, values])

    candidates = {
        OURS: feature_major("auto"),
        REFERENCE: feature_major("reference"),
        PLAIN: Candidate(lambda: plain.composite(alpha, rows, scene.ray, scene.offsets), [alpha, rows]),
        **others.nerfacc_composite(alpha, rows, scene),
    }
    work = Work(bytes_moved=4 * n * (6 + 3 * CHANNELS))
    return Operation("composite, forward and backward", n, candidates, work)


def adam(layout: GridLayout, device: torch.device) -> Operation:
    """A step of Adam on a table: torch's fused form, which `systems.optim` asks for, and its default."""

    def step(fused: bool | None) -> Candidate:
        parameter = torch.zeros(layout.n_entries, layout.n_features, device=device, requires_grad=True)
        parameter.grad = torch.randn_like(parameter)
        return Candidate(torch.enable_grad()(torch.optim.Adam([parameter], fused=fused).step))

    candidates = {OURS: step(fused=True), PLAIN: step(fused=None)}
    n = layout.n_entries * layout.n_features
    return Operation(f"Adam, {n / 1e6:.1f} M parameters", n, candidates, Work(bytes_moved=28 * n))


def _forward_only(candidates: dict[str, Candidate]) -> dict[str, Candidate]:
    return {name: replace(candidate, leaves=()) for name, candidate in candidates.items()}


def _perceptron(*widths: int, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases that keep the size of what they are given."""
    weights, biases = [], []
    for n_in, n_out in zip(widths, widths[1:], strict=False):
        weights.append((torch.randn(n_out, n_in, device=device) / n_in**0.5).requires_grad_())
        biases.append(torch.zeros(n_out, device=device, requires_grad=True))
    return weights, biases
