"""Where the entries of a multiresolution hash grid lie (Mueller et al. 2022, sec. 3)."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Above this many cells along an axis a float32 position has fewer than four bits left inside its cell.
FINEST_RESOLUTION = 2**20


@dataclass(frozen=True)
class GridLayout:
    """Levels of a grid over the unit cube, coarse to fine, in one table [n_entries, n_features].

    Level `l` has `scales[l] = base_resolution * per_level_scale^l - 1` cells along an axis. A level whose vertices
    fit stores them densely, x fastest; the others share `2^log2_hashmap_size` entries by hashing.

    Attributes:
        n_levels: number of levels, at least 1.
        n_features: numbers stored per vertex.
        log2_hashmap_size: base-2 logarithm of the most entries a level may have, 3 to 28.
        base_resolution: vertices along an axis at the coarsest level.
        per_level_scale: growth of the resolution from one level to the next, at least 1.
    """

    n_levels: int
    n_features: int
    log2_hashmap_size: int
    base_resolution: int
    per_level_scale: float

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("n_levels", self.n_levels, 1, 64),
            ("n_features", self.n_features, 1, 64),
            ("log2_hashmap_size", self.log2_hashmap_size, 3, 28),
            ("base_resolution", self.base_resolution, 2, FINEST_RESOLUTION),
            ("per_level_scale", self.per_level_scale, 1, FINEST_RESOLUTION),
        ):
            if not low <= value <= high:
                raise ValueError(f"hash grid: {name} is {value}, expected {low} to {high}")
        finest = math.log(self.base_resolution) + (self.n_levels - 1) * math.log(self.per_level_scale)
        if finest > math.log(FINEST_RESOLUTION):
            raise ValueError(
                f"hash grid: the finest level has about 10^{finest / math.log(10):.1f} cells a side, expected at most "
                f"{FINEST_RESOLUTION}; lower per_level_scale ({self.per_level_scale}) or n_levels ({self.n_levels})"
            )

    @cached_property
    def scales(self) -> tuple[float, ...]:
        """Cells along an axis; float32 numbers, so that every precision meets the same cells."""
        exact = (self.base_resolution * self.per_level_scale**level - 1.0 for level in range(self.n_levels))
        return tuple(float(np.float32(scale)) for scale in exact)

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Vertices along an axis: positions reach `scale + 0.5`, and the vertex after them must exist."""
        return tuple(math.ceil(scale) + 2 for scale in self.scales)

    @cached_property
    def is_dense(self) -> tuple[bool, ...]:
        """Whether a level has an entry of its own for every vertex."""
        return tuple(resolution**3 <= 2**self.log2_hashmap_size for resolution in self.resolutions)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First entry of each level, and at the end the number of all entries."""
        total, offsets = 0, [0]
        for resolution in self.resolutions:
            # Multiples of 8 entries keep every level aligned to a cache line.
            total += min((resolution**3 + 7) // 8 * 8, 2**self.log2_hashmap_size)
            offsets.append(total)
        return tuple(offsets)

    @property
    def n_entries(self) -> int:
        return self.offsets[-1]

    @property
    def n_outputs(self) -> int:
        return self.n_levels * self.n_features
