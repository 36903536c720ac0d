"""Times every kernel against its reference, both taking turns so that a busy machine slows both alike.

    python scripts/bench_ops.py [points] [rounds]

Prints medians in milliseconds, forward and backward together where there is a backward pass, and how many times faster
the kernel is.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

# The repository is no installed package.
from models import ops  # noqa: E402
from models.ops import GridLayout, native  # noqa: E402
from models.ops.dispatch import Backend  # noqa: E402


def points_on_rays(n: int) -> Tensor:
    """[3, n] points as training sees them: neighbours in memory are neighbours on a ray through a ball."""
    n_rays = -(-n // 64)
    centre = torch.nn.functional.normalize(torch.randn(n_rays, 3), dim=1) * 0.3
    along = torch.nn.functional.normalize(torch.randn(n_rays, 3), dim=1)
    t = torch.linspace(-0.08, 0.08, 64)
    points = centre[:, None] + t[:, None] * along[:, None] + 0.5  # [rays, 64, 3]
    return points.reshape(-1, 3)[:n].clamp(0, 1).t().contiguous()


def perceptron(*widths: int) -> tuple[list[Tensor], list[Tensor | None]]:
    pairs = list(zip(widths, widths[1:], strict=False))
    weights = [(torch.randn(n, m) / m**0.5).requires_grad_() for m, n in pairs]
    return weights, [torch.zeros(n, requires_grad=True) for _, n in pairs]


def jobs(n: int) -> dict[str, Callable[[Backend], object]]:
    """What to time, each as a function of the backend."""
    layout = GridLayout(16, 2, 19, 16, 1.447)
    x, table = points_on_rays(n), ((torch.rand(layout.n_entries, 2) - 0.5) * 0.1).requires_grad_()
    geometry, color = perceptron(35, 64, 14), perceptron(35, 64, 64, 3)
    inputs = torch.randn(35, n, requires_grad=True)
    d_outputs, d_gradient, d_color = torch.randn(14, n), torch.randn(3, n), torch.randn(3, n)
    directions = torch.nn.functional.normalize(torch.randn(3, n), dim=0)
    offsets = torch.arange(0, n + 1, 16) if n % 16 == 0 else torch.tensor([0, n])
    alpha, values = (torch.rand(n) * 0.2).requires_grad_(), torch.rand(5, n, requires_grad=True)
    grid = torch.zeros(128, 128, 128, dtype=torch.uint8)
    axis = (torch.arange(128) + 0.5) / 64 - 1
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    grid[(radius - 0.6).abs() < 0.04], grid[radius < 0.56] = 1, 2
    origins = torch.nn.functional.normalize(torch.randn(1024, 3), dim=1) * 3
    towards = torch.nn.functional.normalize(torch.randn(1024, 3) * 0.3 - origins, dim=1)
    rays = origins, towards, torch.zeros(1024), torch.full((1024,), 9.0), grid

    def sdf(backend: Backend) -> None:
        results = ops.sdf_field(x, table, layout, *geometry, "softplus", backend=backend)
        torch.autograd.grad(results, [table, *geometry[0]], [d_outputs, d_gradient])

    def shading(backend: Backend) -> None:
        result = ops.mlp(inputs, *color, "relu", "sigmoid", backend)
        torch.autograd.grad(result, [inputs, *color[0]], d_color)

    def compositing(backend: Backend) -> None:
        weights, sums = ops.composite(alpha, values, offsets, backend)
        torch.autograd.grad(weights.sum() + sums.sum(), [alpha, values])

    def density(backend: Backend) -> None:
        with torch.no_grad():
            ops.field(x, table, layout, *geometry, "softplus", backend=backend)

    return {
        "sdf_field, forward and backward": sdf,
        "mlp 35-64-64-3, forward and backward": shading,
        "field, forward only": density,
        "spherical_harmonics": lambda backend: ops.spherical_harmonics(directions, 4, backend),
        "composite, forward and backward": compositing,
        "march, 1,024 rays": lambda backend: ops.march(*rays, "box", 1.0, 2 / 1024, 0.0, torch.rand(1024), backend),
    }


def main(n: int, rounds: int) -> None:
    torch.manual_seed(0)
    if native.obstacle():
        sys.exit(f"there are no kernels to time: {native.obstacle()}")
    print(f"{n} points, {torch.get_num_threads()} threads, medians of {rounds}")
    for name, job in jobs(n).items():
        times: dict[Backend, list[float]] = {"native": [], "reference": []}
        for round_ in range(-1, rounds):  # the first round only warms up
            for backend, measured in times.items():
                start = time.perf_counter()
                job(backend)
                if round_ >= 0:
                    measured.append((time.perf_counter() - start) * 1e3)
        fast, slow = (statistics.median(measured) for measured in times.values())
        print(f"{name:40s} kernel {fast:8.2f} ms   reference {slow:8.2f} ms   {slow / fast:5.1f} times")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]), *(65536, 7)[len(sys.argv[1:3]) :])
