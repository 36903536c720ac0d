"""Which part of a box holds anything, so that points elsewhere need not be asked."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

# Points at which the density is asked at once.
_PIECE = 1 << 16


class Scaffold(nn.Module):
    """Cells of a box that are occupied, or next to one that is. Until it is filled, it leaves nothing out.

    The box is that in which it was last filled; beyond it everything is empty then. (The published code asks coordinate
    by coordinate where it means to ask in pieces [D19].)

    Args:
        resolution: cells along x, y and z.
    """

    is_filled: Tensor
    occupied: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, resolution: Sequence[int]):
        super().__init__()
        self.register_buffer("is_filled", torch.tensor(False))
        self.register_buffer("occupied", torch.ones(*resolution, dtype=torch.bool))
        self.register_buffer("low", -torch.ones(3))
        self.register_buffer("high", torch.ones(3))

    def forward(self, points: Float[Tensor, "N 3"]) -> Bool[Tensor, "N"]:
        """Whether anything may be at world points."""
        n = torch.tensor(self.occupied.shape, device=points.device)
        cell = ((points - self.low) / (self.high - self.low) * n).floor()
        is_inside = ((cell >= 0) & (cell < n)).all(dim=-1)
        x, y, z = torch.minimum(cell.clamp_min(0), n - 1).long().unbind(-1)
        return ~self.is_filled | (is_inside & self.occupied[x, y, z])

    @torch.no_grad()
    def fill(
        self,
        box: tuple[Float[Tensor, "3"], Float[Tensor, "3"]],
        density: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]],
        threshold: float,
        reach: int,
    ) -> None:
        """Asks a density at the centres of the cells.

        Args:
            box: lowest and highest corner, world units.
            density: of world points, inverse world units.
            threshold: density above which a cell is occupied.
            reach: cells around an occupied one that count as occupied, too.
        """
        low, high = box
        sides = [torch.arange(n, device=low.device) for n in self.occupied.shape]
        cell = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).view(-1, 3)
        n = torch.tensor(self.occupied.shape, device=low.device)
        centers = low + (cell + 0.5) / n * (high - low)
        dense = torch.cat([density(piece) > threshold for piece in centers.split(_PIECE)])
        around = F.max_pool3d(dense.view(1, 1, *self.occupied.shape).float(), 2 * reach + 1, 1, reach)
        self.occupied.copy_(around[0, 0] > 0)
        self.low.copy_(low)
        self.high.copy_(high)
        self.is_filled.fill_(True)

    def box(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]] | None:
        """The smallest box around the occupied cells, or None where there are none."""
        cell = self.occupied.nonzero()
        if len(cell) == 0:
            return None
        side = (self.high - self.low) / torch.tensor(self.occupied.shape, device=cell.device)
        return self.low + cell.amin(0) * side, self.low + (cell.amax(0) + 1) * side
