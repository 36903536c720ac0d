"""What training hands to the operations: samples where rays of random pixels pass a surface, ray after ray."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from models import ops

RADIUS = 1.0
BALL, BAND = 0.6, 0.03  # radius of the object and half the thickness of the shell around its surface, world units
STEP = 2 * 3**0.5 / 1024


@dataclass(frozen=True)
class Scene:
    """A ball in a box of half side 1, seen by cameras all around, and the samples of a march through its shell.

    Attributes:
        origins, directions: [R, 3] rays of pixels drawn at random.
        grid: [128, 128, 128] states of cells.
        t_start, t_end, ray, offsets: packed samples, see `ops.march`.
        x: [3, N] their midpoints in the unit cube.
        sdf, slope: [N] signed distance and its derivative along the ray, world units.
    """

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    grid: UInt8[Tensor, "128 128 128"]
    t_start: Float[Tensor, "N"]
    t_end: Float[Tensor, "N"]
    ray: Int[Tensor, "N"]
    offsets: Int[Tensor, "R_plus_1"]
    x: Float[Tensor, "3 N"]
    sdf: Float[Tensor, "N"]
    slope: Float[Tensor, "N"]

    @property
    def n_rays(self) -> int:
        return len(self.origins)

    @property
    def width(self) -> Float[Tensor, "N"]:
        return self.t_end - self.t_start


def make_scene(n_samples: int, device: torch.device) -> Scene:
    """A scene with exactly so many samples; the last ray is cut short."""
    grid = _shell()
    # Every ray meets the ball and has at least a dozen samples there.
    origins, directions = _rays(n_samples // 12 + 8)
    near, far = torch.zeros(len(origins)), torch.full((len(origins),), 9.0)
    jitter = torch.rand(len(origins))
    t_start, t_end, ray, offsets = ops.march(
        origins, directions, near, far, grid, "box", RADIUS, STEP, 0.0, jitter, backend="reference"
    )
    t_start, t_end, ray = t_start[:n_samples], t_end[:n_samples], ray[:n_samples]
    n_rays = int(ray[-1]) + 1
    offsets = offsets[: n_rays + 1].clamp(max=n_samples)
    along = directions[ray]
    points = origins[ray] + 0.5 * (t_start + t_end)[:, None] * along  # [N, 3]
    distance = points.norm(dim=1)
    slope = ((points / distance[:, None]) * along).sum(1).clamp(max=0)
    x = (points / (2 * RADIUS) + 0.5).t().contiguous()
    tensors = origins[:n_rays], directions[:n_rays], grid, t_start, t_end, ray, offsets, x, distance - BALL, slope
    return Scene(*(tensor.to(device) for tensor in tensors))


def _shell() -> Tensor:
    axis = (torch.arange(128) + 0.5) / 64 - 1
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() - BALL
    grid = torch.zeros(128, 128, 128, dtype=torch.uint8)
    grid[distance.abs() < BAND + 0.014] = 1  # half a cell's diagonal
    grid[distance < -BAND - 0.014] = 2
    return grid


def _rays(n_rays: int) -> tuple[Tensor, Tensor]:
    origins = 4 * functional.normalize(torch.randn(n_rays, 3), dim=1)
    aims = 0.9 * BALL * functional.normalize(torch.randn(n_rays, 3), dim=1) * torch.rand(n_rays, 1) ** (1 / 3)
    return origins, functional.normalize(aims - origins, dim=1)
