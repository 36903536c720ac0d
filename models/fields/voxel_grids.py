"""Voxel grids: features at the vertices of a regular grid in a box, whole or as sums of products of factors.

A grid is made of factors, tensors that have some of the axes x, y and z after one of components; their names are those
axes. Local coordinates run from -1 to 1 along each side of the box.

A factor is a parameter with room for the largest resolution of the schedule, of which the present resolution is the
leading corner; the rest is zero. So optimisers, processes that train together and checkpoints see one shape throughout,
and a checkpoint need only tell the resolution.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models import voxel_grids
from utils.registry import ConfigError

_AXES = "xyz"


@dataclass
class GridConfig:
    """Options of every grid."""

    extents: list[float] = field(default_factory=lambda: [2.0, 2.0, 2.0])
    """Sides of the box along x, y and z, world units."""
    translation: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Centre of the box, world units."""
    resolution_changes: dict[int, list[int]] = field(default_factory=lambda: {0: [128, 128, 128]})
    """Vertices along x, y and z, by the training step from which on the grid has them; it is interpolated then, and
    optimisers begin anew with it. Step 0 is required."""
    n_features: int = 1
    """Length of the feature at a vertex."""
    align_corners: bool = True
    """Whether the outermost vertices lie on the faces of the box; otherwise half a cell inside."""
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    """What is beyond the outermost vertices."""
    mode: Literal["bilinear", "nearest"] = "bilinear"
    """What is between vertices: linear along each axis, or that of the nearest one."""
    init_std: float = 0.1
    """Standard deviation of the values before training."""
    init_mean: float = 0.0
    """Their mean."""

    def __post_init__(self) -> None:
        if len(self.extents) != 3 or min(self.extents) <= 0 or len(self.translation) != 3:
            raise ConfigError(
                f"extents {self.extents}, translation {self.translation}: expected three numbers each, extents above 0"
            )
        changes = self.resolution_changes
        if 0 not in changes:
            raise ConfigError(f"resolution_changes has the steps {list(changes)}; the resolution at step 0 is missing")
        for step, resolution in changes.items():
            if not isinstance(step, int) or step < 0 or len(resolution) != 3 or min(resolution) < 2:
                raise ConfigError(
                    f"resolution_changes has {step!r}: {resolution}; expected a step and three numbers of 2 or more"
                )
        if self.n_features < 1:
            raise ConfigError(f"n_features is {self.n_features}; expected 1 or more")

    def last_changes(self) -> dict[str, int]:
        return {"resolution_changes": max(self.resolution_changes)}


@dataclass
class FactorConfig(GridConfig):
    """Options of grids that are sums of products."""

    basis_matrix: bool = True
    """Whether components are mixed to features by a learnt matrix; otherwise they are added up to a single one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.basis_matrix and self.n_features != 1:
            raise ConfigError(f"n_features is {self.n_features}; without basis_matrix there is 1")


class VoxelGrid(nn.Module, ABC):
    """A grid of features. Subclasses are built as `grid(config)`.

    Args:
        config: options.
        n_components: of each factor, by its axes.
        n_mixed: components that a basis mixes to features; 0 without one.

    Attributes:
        resolution: present number of vertices along x, y and z.
        extents, translation: [3] sides and centre of the present box, world units.
    """

    extents: Tensor
    translation: Tensor

    def __init__(self, config: GridConfig, n_components: Mapping[str, int], n_mixed: int = 0):
        super().__init__()
        self.config = config
        changes = config.resolution_changes
        self.resolution = tuple(changes[0])
        largest = [max(sides) for sides in zip(*changes.values(), strict=True)]
        room = {axes: [largest[_AXES.index(axis)] for axis in axes] for axes in n_components}
        factors = {axes: nn.Parameter(torch.zeros(n, *room[axes])) for axes, n in n_components.items()}
        self.factors = nn.ParameterDict(factors)
        self.basis = nn.Parameter(torch.empty(n_mixed, config.n_features)) if n_mixed else None
        with torch.no_grad():
            for values in (*map(self._present, factors), *([] if self.basis is None else [self.basis])):
                values.normal_(config.init_mean, config.init_std)
        self.register_buffer("extents", torch.tensor(config.extents))
        self.register_buffer("translation", torch.tensor(config.translation))

    @abstractmethod
    def combine(self, values: Mapping[str, Float[Tensor, "_ ..."]]) -> Float[Tensor, "_ ..."]:
        """Products of the factors' values at places, by component; values broadcast against each other."""

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Features at world points."""
        local = self._local(points)
        return self._mixed(self.combine({axes: self._sample(axes, local) for axes in self.factors})).T

    def dense(self) -> Float[Tensor, "F X Y Z"]:
        """Features at all vertices."""
        values = {}
        for axes in self.factors:
            present = self._present(axes)
            sides = [n if axis in axes else 1 for axis, n in zip(_AXES, self.resolution, strict=True)]
            # An axis that a factor lacks is one of length 1; those that it has are in order.
            values[axes] = present.reshape(len(present), *sides)
        return self._mixed(self.combine(values))

    def box(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Lowest and highest corner, world units."""
        return self.translation - self.extents / 2, self.translation + self.extents / 2

    def follow(self, step: int) -> list[nn.Parameter]:
        """Takes the resolution of a training step; returns the parameters that this replaced."""
        changes = self.config.resolution_changes
        wanted = changes[max(start for start in changes if start <= step)]
        if tuple(wanted) == self.resolution:
            return []
        return self._resample(wanted, *self.box())

    def crop(self, low: Float[Tensor, "3"], high: Float[Tensor, "3"]) -> list[nn.Parameter]:
        """Spends all vertices on the part of the box between two world corners; returns the replaced parameters."""
        own_low, own_high = self.box()
        low, high = torch.maximum(low, own_low), torch.minimum(high, own_high)
        return self._resample(self.resolution, low, high) if (low < high).all() else []

    @torch.no_grad()
    def _resample(self, resolution: Sequence[int], low: Tensor, high: Tensor) -> list[nn.Parameter]:
        start, end = self._local(low).tolist(), self._local(high).tolist()
        for axes, factor in self.factors.items():
            values = self._present(axes)
            for place, row in enumerate(map(_AXES.index, axes)):
                values = resampled(values, 1 + place, start[row], end[row], resolution[row], self.config.align_corners)
            factor.zero_()
            factor[tuple(map(slice, values.shape))] = values
        self.resolution = tuple(resolution)
        self.extents.copy_(high - low)
        self.translation.copy_((low + high) / 2)
        return list(self.factors.values())

    def _local(self, points: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3"]:
        return (points - self.translation) / (self.extents / 2)

    def _present(self, axes: str) -> Float[Tensor, "_ *sides"]:
        """The part of a factor that has the present resolution."""
        sides = [self.resolution[_AXES.index(axis)] for axis in axes]
        return self.factors[axes][(slice(None), *map(slice, sides))]

    def _sample(self, axes: str, local: Float[Tensor, "N 3"]) -> Float[Tensor, "_ N"]:
        """A factor between its vertices."""
        values = self._present(axes)
        # torch names axes from the last one on.
        place = torch.stack([local[:, _AXES.index(axis)] for axis in reversed(axes)], dim=-1)
        if len(axes) == 1:  # which torch samples as an image of one column
            values, place = values[..., None], F.pad(place, (1, 0))
        place = place.view(1, len(local), *(1 for _ in values.shape[2:]), values.dim() - 1)
        config = self.config
        found = F.grid_sample(values[None], place, config.mode, config.padding, config.align_corners)
        return found.view(len(values), len(local))

    def _mixed(self, components: Float[Tensor, "C *P"]) -> Float[Tensor, "F *P"]:
        return components if self.basis is None else torch.einsum("cf,c...->f...", self.basis, components)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.resolution)

    def set_extra_state(self, state: Tensor) -> None:
        self.resolution = tuple(state.tolist())


@voxel_grids.register("full")
class FullGrid(VoxelGrid):
    """A value for every vertex."""

    @dataclass
    class Config(GridConfig):
        pass

    def __init__(self, config: "FullGrid.Config"):
        super().__init__(config, {"xyz": config.n_features})

    def combine(self, values: Mapping[str, Float[Tensor, "_ ..."]]) -> Float[Tensor, "_ ..."]:
        return values["xyz"]


@voxel_grids.register("cp")
class VectorGrid(VoxelGrid):
    """A sum of products of three vectors, one per axis: CP (Chen et al. 2022, TensoRF, eq. 1)."""

    @dataclass
    class Config(FactorConfig):
        n_components: int = 24
        """Products."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.n_components < 1:
                raise ConfigError(f"n_components is {self.n_components}; expected 1 or more")

    def __init__(self, config: "VectorGrid.Config"):
        n = config.n_components
        super().__init__(config, dict.fromkeys(_AXES, n), n * config.basis_matrix)

    def combine(self, values: Mapping[str, Float[Tensor, "_ ..."]]) -> Float[Tensor, "_ ..."]:
        components = values["x"] * values["y"] * values["z"]
        return components if self.basis is not None else components.sum(dim=0, keepdim=True)


@voxel_grids.register("vm")
class VectorMatrixGrid(VoxelGrid):
    """A sum of products of a plane and the vector across it: VM (Chen et al. 2022, TensoRF, eq. 3)."""

    @dataclass
    class Config(FactorConfig):
        distribution_of_components: list[int] = field(default_factory=lambda: [8, 8, 8])
        """Products with planes xy, yz and xz."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if len(self.distribution_of_components) != 3 or min(self.distribution_of_components) < 1:
                raise ConfigError(
                    f"distribution_of_components is {self.distribution_of_components}; expected three numbers of "
                    "1 or more, for the planes xy, yz and xz"
                )

    def __init__(self, config: "VectorMatrixGrid.Config"):
        xy, yz, xz = config.distribution_of_components
        components = {"xy": xy, "xz": xz, "yz": yz, "z": xy, "y": xz, "x": yz}
        super().__init__(config, components, (xy + yz + xz) * config.basis_matrix)

    def combine(self, values: Mapping[str, Float[Tensor, "_ ..."]]) -> Float[Tensor, "_ ..."]:
        products = [values[plane] * values[across] for plane, across in (("xy", "z"), ("xz", "y"), ("yz", "x"))]
        components = torch.cat(products)
        return components if self.basis is not None else components.sum(dim=0, keepdim=True)


def resampled(values: Tensor, axis: int, start: float, end: float, n: int, align_corners: bool) -> Tensor:
    """Values at n new vertices along an axis, linear between the old ones and constant beyond them.

    Args:
        values: any shape, with two or more old vertices along the axis.
        axis: which one.
        start, end: what the new vertices span, in local coordinates of the old ones.
        n: new vertices.
        align_corners: whether vertices lie on the ends of what they span; otherwise half a cell inside.
    """
    n_old, step = values.shape[axis], torch.arange(n, device=values.device, dtype=torch.float64)
    share = step / (n - 1) if align_corners else (step + 0.5) / n
    place = (start + share * (end - start) + 1) / 2
    index = (place * (n_old - 1) if align_corners else place * n_old - 0.5).clamp(0, n_old - 1)
    before = index.floor().long().clamp_max(n_old - 2)
    weight = (index - before).to(values).view(-1, *(1 for _ in values.shape[axis + 1 :]))
    return torch.lerp(values.index_select(axis, before), values.index_select(axis, before + 1), weight)
