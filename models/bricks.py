"""A field on a grid of nodes, of which only what lies around its zero level is asked for and kept.

The grid is cut into bricks of 8³ nodes. A brick that holds both signs keeps its values; of any other one the sign is
kept, which is all that marching cubes wants of it. Which bricks are looked into is a guess of the caller's, and
`follow` makes up for it: as long as a brick differs in sign from its neighbour across their common border, both are
asked. What has been found of a surface is therefore found whole, whatever the guess, and no mesh has a crack where
asking stopped.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Level = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]
"""World points [N, 3] to [N] numbers that are negative inside the surface."""

BRICK = 8
"""Nodes per side of a brick."""
OUTSIDE, INSIDE = -1, -2
"""Rows of bricks of one sign."""
LARGE = 1e30
"""Stands for infinity, so that interpolation stays finite."""


class Bricks:
    """The nodes of a box, brick by brick.

    Args:
        level: called without gradients, on CPU tensors; NaN counts as outside.
        box: [2, 3] lower and upper corner, world units; the outermost nodes lie on its faces.
        resolution: nodes per axis, at least 2.
        chunk: most points per call of `level` (rounded up to one brick).

    Attributes:
        row: [P, P, P] of the values of each brick, OUTSIDE or INSIDE.
        low, high, n_nan, n_asked: range of the values that were seen, how many were NaN, how many there were.
    """

    def __init__(self, level: Level, box: Float[Tensor, "2 3"], resolution: int, chunk: int):
        self.level, self.resolution, self.chunk = level, resolution, chunk
        self.box, self.lower, self.step = box, box[0], (box[1] - box[0]) / (resolution - 1)
        self.per_axis = math.ceil(resolution / BRICK)
        self.row = torch.full((self.per_axis,) * 3, OUTSIDE, dtype=torch.int32)
        # Signs met on the two faces of each brick across each axis: 1 outside, 2 inside, 3 both.
        self._first = torch.ones(3, *self.row.shape, dtype=torch.uint8)
        self._last = self._first.clone()
        self._kept: list[Tensor] = []
        self.low, self.high, self.n_nan, self.n_asked = math.inf, -math.inf, 0, 0

    def __len__(self) -> int:
        """Bricks whose values are kept."""
        return sum(map(len, self._kept))

    @property
    def values(self) -> Float[Tensor, "S 8 8 8"]:
        """Of the bricks that are kept; nodes beyond the grid repeat its last ones."""
        if len(self._kept) != 1:
            self._kept = [torch.cat(self._kept) if self._kept else torch.empty(0, BRICK, BRICK, BRICK)]
        return self._kept[0]

    def all(self) -> Int[Tensor, "B 3"]:
        """Every brick."""
        axis = torch.arange(self.per_axis)
        return torch.cartesian_prod(axis, axis, axis)

    def holding(self, points: Float[Tensor, "N 3"]) -> Int[Tensor, "N 3"]:
        """The bricks that world points lie in, or next to where they lie outside of the box."""
        return ((points - self.lower) / (self.step * BRICK)).long().clamp(0, self.per_axis - 1)

    def centres(self) -> Float[Tensor, "B 3"]:
        """World points in the middle of every brick's nodes, of which the last ones of an axis may have fewer."""
        first = self.all() * BRICK
        last = (first + BRICK - 1).clamp(max=self.resolution - 1)
        return self.lower + self.step * (first + last) / 2

    def reach(self) -> Float[Tensor, "3"]:
        """World distances, axis by axis, from the centre of a brick to its outermost nodes."""
        return self.step * (BRICK - 1) / 2

    def guess(self, centre: Float[Tensor, "B"]) -> None:
        """Takes the sign at the centre of every brick for that of its nodes."""
        self._mark(self.all(), centre < 0)

    def ask(
        self,
        bricks: Int[Tensor, "B 3"],
        keeps_all: bool = False,
        progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        """Looks into bricks, keeps the values of those with both signs, and tells the finished share, in [0, 1]."""
        axis = torch.arange(BRICK)
        offsets = self.step * torch.cartesian_prod(axis, axis, axis)
        per_call = max(1, self.chunk // BRICK**3)
        for start in range(0, len(bricks), per_call):
            part = bricks[start : start + per_call]
            points = (self.lower + self.step * BRICK * part)[:, None] + offsets
            points = points.reshape(-1, 3).minimum(self.box[1])  # [B * 512, 3]
            self._store(part, self.evaluate(points).view(-1, BRICK, BRICK, BRICK), keeps_all)
            progress(min(1.0, (start + per_call) / len(bricks)))

    def follow(self) -> None:
        """Asks across every border where the sign changes, until the surface is closed or leaves the box."""
        while len(bricks := self._across_borders()):
            self.ask(bricks, keeps_all=True)

    @torch.no_grad()
    def evaluate(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """The level at world points, finite."""
        value = torch.cat([self.level(part).float().cpu() for part in points.split(max(self.chunk, BRICK**3))])
        self.n_asked += len(value)
        low, high = map(float, value.aminmax()) if len(value) else (math.inf, -math.inf)
        if math.isnan(low):
            is_nan = value.isnan()
            value, self.n_nan = value.nan_to_num(nan=LARGE), self.n_nan + int(is_nan.count_nonzero())
            low, high = map(float, value[~is_nan].aminmax()) if not is_nan.all() else (math.inf, -math.inf)
        self.low, self.high = min(self.low, low), max(self.high, high)
        return value.clamp(-LARGE, LARGE)

    def at(self, nodes: Int[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Values of nodes in bricks that are kept."""
        row = self.row[(nodes // BRICK).unbind(-1)].long()
        x, y, z = (nodes % BRICK).unbind(-1)
        return self.values[row, x, y, z]

    def _store(self, bricks: Int[Tensor, "B 3"], values: Float[Tensor, "B 8 8 8"], keeps_all: bool) -> None:
        inside = values < 0
        some, every = inside.flatten(1).any(dim=1), inside.flatten(1).all(dim=1)
        kept = torch.ones_like(some) if keeps_all else some & ~every
        self._mark(bricks[~kept], every[~kept])

        x, y, z = bricks[kept].unbind(-1)
        self.row[x, y, z] = torch.arange(len(self), len(self) + len(x), dtype=torch.int32)
        self._kept.append(values[kept])
        for axis in range(3):
            for signs, place in ((self._first, 0), (self._last, BRICK - 1)):
                face = inside[kept].select(axis + 1, place).flatten(1)
                signs[axis, x, y, z] = (~face).any(dim=1).byte() + 2 * face.any(dim=1).byte()

    def _mark(self, bricks: Int[Tensor, "B 3"], is_inside: Bool[Tensor, "B"]) -> None:
        """Of these, the sign alone is known."""
        x, y, z = bricks.unbind(-1)
        self.row[x, y, z] = torch.where(is_inside, INSIDE, OUTSIDE).int()
        self._first[:, x, y, z] = self._last[:, x, y, z] = is_inside.byte() + 1

    def _across_borders(self) -> Int[Tensor, "B 3"]:
        """Bricks that are not kept though the sign changes between one of their faces and the neighbour's."""
        wanted = torch.zeros(self.row.shape, dtype=torch.bool)
        n = self.per_axis - 1
        for axis in range(3):
            differs = (self._last[axis].narrow(axis, 0, n) | self._first[axis].narrow(axis, 1, n)) == 3
            wanted.narrow(axis, 0, n).logical_or_(differs)
            wanted.narrow(axis, 1, n).logical_or_(differs)
        return (wanted & (self.row < 0)).nonzero()
