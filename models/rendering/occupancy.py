"""Which cells of space may hold something, so that empty ones are skipped.

A grid covers the unit cube of a field's contraction. A cell is 0 (empty: skipped), 1 (may hold a surface: sampled)
or 2 (solid: a ray ends there).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from models import occupancies, ops
from utils.contraction import Contraction, contract, expand
from utils.randomness import mix

EMPTY, SURFACE, SOLID = 0, 1, 2

Field = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]


@dataclass
class FieldView:
    """What a grid may ask of a field, at world points.

    Attributes:
        opacity: opacity of one march step there.
        sdf: signed distance there, world units; None for densities.
        sharpness: of the surface, inverse world units.
    """

    opacity: Field
    sdf: Field | None = None
    sharpness: float | Float[Tensor, ""] = math.inf


class Occupancy(nn.Module, ABC):
    """A grid of [G, G, G] cells, indexed z, y, x."""

    cells: UInt8[Tensor, "G G G"]
    gaps: UInt8[Tensor, "B B B"]

    def __init__(self, resolution: int, radius: float, contraction: Contraction):
        super().__init__()
        self.resolution, self.radius = resolution, radius
        self.contraction: Contraction = contraction
        self.register_buffer("cells", torch.full((resolution,) * 3, SURFACE, dtype=torch.uint8))
        self.register_buffer("gaps", ops.empty_gaps(self.cells))

    @abstractmethod
    def refresh(self, step: int, field: FieldView, seed: int) -> None:
        """Asks the field anew if it is time; equal on all devices for the same `seed`, `step` and field."""

    def _fill(self, cells: Tensor) -> None:
        self.cells.copy_(cells)
        self.gaps.copy_(ops.empty_gaps(self.cells))

    def share(self) -> float:
        """Share of cells that are sampled."""
        return (self.cells == SURFACE).float().mean().item()

    def at(self, points: Float[Tensor, "N 3"]) -> UInt8[Tensor, "N"]:
        """State of the cells of world points inside the box."""
        unit = points / (2 * self.radius) + 0.5
        x, y, z = (unit * self.resolution).long().clamp(0, self.resolution - 1).unbind(-1)
        return self.cells[z, y, x]

    def near(self, points: Float[Tensor, "N 3"], reach: float) -> Bool[Tensor, "N"]:
        """Whether a cell that is not empty may lie within `reach` of world points, axis by axis, world units."""
        unit_reach = reach / (2 * self.radius)
        if self.contraction == "sphere":
            # It halves distances and shrinks them outside of the ball, though not axis by axis: the diagonal counts.
            unit_reach *= math.sqrt(3) / 2
        n_cells = math.ceil(unit_reach * self.resolution)
        holds = (self.cells != EMPTY).float()[None]
        for axis in range(3):
            window, padding = [1, 1, 1], [0, 0, 0]
            window[axis], padding[axis] = 2 * n_cells + 1, n_cells
            holds = torch.nn.functional.max_pool3d(holds, window, 1, padding)
        index = (contract(points, self.radius, self.contraction) * self.resolution).long()
        x, y, z = index.clamp(0, self.resolution - 1).unbind(-1)
        return holds[0, z, y, x] > 0

    def _unit(
        self, index: Int[Tensor, "M"], shift: Float[Tensor, "M 3"] | float, resolution: int
    ) -> Float[Tensor, "M 3"]:
        """Unit-cube position at `shift` (in cells) from the lower corner of flat cells."""
        x, y, z = index % resolution, index // resolution % resolution, index // resolution**2
        return (torch.stack([x, y, z], dim=-1) + shift) / resolution


class Everywhere(Occupancy):
    """No pruning: every cell is sampled."""

    def __init__(self, radius: float, contraction: Contraction):
        super().__init__(1, radius, contraction)

    def refresh(self, step: int, field: FieldView, seed: int) -> None:
        pass


@occupancies.register("moving-average")
class MovingAverage(Occupancy):
    """A decaying maximum of the opacity met at random points of each cell (Müller et al. 2022, appendix E.2)."""

    @dataclass
    class Config:
        resolution: int | None = None
        """Cells per side; null means 128 in a box and 256 where all of space is contracted."""

    DECAY, EVERY, WARMUP = 0.95, 16, 256
    opacity: Float[Tensor, "G3"]

    def __init__(
        self, config: "MovingAverage.Config", radius: float, contraction: Contraction, threshold: float = 0.01
    ):
        resolution = config.resolution or (128 if contraction == "box" else 256)
        super().__init__(resolution, radius, contraction)
        self.threshold = threshold
        self.register_buffer("opacity", torch.zeros(resolution**3))

    def refresh(self, step: int, field: FieldView, seed: int) -> None:
        if step % self.EVERY:
            return
        device = self.opacity.device
        random = torch.Generator(device).manual_seed(mix(seed, step))
        index = self._chosen(step, random)
        unit = self._unit(index, torch.rand(len(index), 3, device=device, generator=random), self.resolution)
        if self.contraction == "sphere":
            is_inside = (unit - 0.5).norm(dim=-1) < 0.5
            index, unit = index[is_inside], unit[is_inside]
        self.opacity[index] *= self.DECAY
        found = field.opacity(expand(unit, self.radius, self.contraction))
        # Cells may be chosen twice: the maximum does not depend on the order.
        self.opacity.scatter_reduce_(0, index, found, "amax")
        limit = self.opacity.mean().clamp_max(self.threshold)
        self._fill((self.opacity > limit).view_as(self.cells))

    def _chosen(self, step: int, random: torch.Generator) -> Int[Tensor, "M"]:
        """All cells at first; later a quarter of all at random and as many of the occupied ones."""
        n, device = self.opacity.shape[0], self.opacity.device
        if step < self.WARMUP:
            return torch.arange(n, device=device)
        anywhere = torch.randint(n, (n // 4,), device=device, generator=random)
        occupied = self.cells.flatten().nonzero()[:, 0]
        if len(occupied) > n // 4:
            occupied = occupied[torch.randint(len(occupied), (n // 4,), device=device, generator=random)]
        # Decay applies once per visit, so each cell is taken once.
        is_chosen = torch.zeros(n, dtype=torch.bool, device=device)
        is_chosen[anywhere] = is_chosen[occupied] = True
        return is_chosen.nonzero()[:, 0]


@occupancies.register("sdf-shell")
class SurfaceShell(Occupancy):
    """The cells within reach of the zero level; those deeper inside are solid.

    The band is where an interval can have any opacity at the present sharpness, plus about half a cell's diagonal, so
    it narrows as the surface sharpens and a ray gets a dozen samples instead of a thousand. Cells of four times the
    side are asked first; they are halved, twice, where it is not clear yet what their parts are.
    """

    @dataclass
    class Config:
        resolution: int = 128
        """Cells per side, a multiple of 4."""
        band: float = 5.0
        """Half width of the band in units of 1 / sharpness."""
        max_band: float = 0.2
        """Largest half width of the band, in units of the box's half side."""

        def __post_init__(self) -> None:
            if self.resolution % 4:
                raise ValueError(f"resolution is {self.resolution}, but must be a multiple of 4")

    # Where the field is steeper than a true distance, its values overstate how far the surface is.
    SLACK = 1.2
    # Share of half a cell's diagonal beyond which, towards a corner, less than one part in a hundred of the cell lies.
    CORNER = 0.75

    def __init__(self, config: "SurfaceShell.Config", radius: float, contraction: Contraction, threshold: float = 0.0):
        super().__init__(config.resolution, radius, contraction)
        self.band, self.max_band = config.band, config.max_band * radius

    def refresh(self, step: int, field: FieldView, seed: int) -> None:
        if step % (16 if step < 512 else 64):
            return
        assert field.sdf is not None
        band = min(self.band / float(field.sharpness), self.max_band)
        n = self.resolution // 4
        side, corner = (torch.arange(size, device=self.cells.device) for size in (n, 2))
        places = torch.cartesian_prod(side, side, side).T  # [3, M] rows z, y, x of the cells to ask
        children = torch.cartesian_prod(corner, corner, corner).T  # [3, 8]
        states = torch.empty((n, n, n), dtype=torch.uint8, device=self.cells.device)
        while True:
            sdf = field.sdf(expand(((places.flip(0) + 0.5) / n).T, self.radius, self.contraction))
            states[tuple(places)] = found = self._state(sdf, band, n)
            if n == self.resolution:
                break
            # So near the surface that all of a cell's parts are in the shell, they need not be asked.
            margin = self._half_diagonal(n) - self._half_diagonal(self.resolution)
            outside, inside = self._reach(band, self.resolution)
            is_sure = (sdf < outside - margin) & (sdf > margin - inside)
            unclear = places[:, (found == SURFACE) & ~is_sure]
            places, n = (2 * unclear[..., None] + children[:, None]).flatten(1), 2 * n
            for axis in (2, 1, 0):  # in this order each copy is as short as it can be
                states = states.repeat_interleave(2, axis)
        self._fill(states)

    def _state(self, sdf: Float[Tensor, "M"], band: float, resolution: int) -> UInt8[Tensor, "M"]:
        outside, inside = self._reach(band, resolution)
        state = torch.where(sdf < 0, SOLID, EMPTY)
        return torch.where((sdf < outside) & (sdf > -inside), SURFACE, state).to(torch.uint8)

    def _reach(self, band: float, resolution: int) -> tuple[float, float]:
        """How far outside and inside of the surface the centres of shell cells may lie.

        Less far inside, where the last corner of a cell does not count: thin things are not deep, and rays that are
        not ended in them go on to what nobody sees.
        """
        outside = band + self._half_diagonal(resolution)
        return outside, outside - (1 - self.CORNER) * self._half_diagonal(self.resolution)

    def _half_diagonal(self, resolution: int) -> float:
        """How much the field may change between the centre of a cell and its corners."""
        return self.SLACK * math.sqrt(3) * self.radius / resolution
