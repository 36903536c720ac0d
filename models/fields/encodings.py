"""Encodings: what a small network sees instead of bare coordinates.

Positions come as unit-cube coordinates; directions are brought to [0, 1] too, as tiny-cuda-nn has it. With
`include_xyz` the coordinates themselves, as 2x - 1, precede the encoding: sphere initialisation needs them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import encodings, ops
from models.ops.dispatch import Backend
from utils.registry import ConfigError


class Encoding(nn.Module, ABC):
    """Maps [N, n_inputs] coordinates in [0, 1] to [N, n_outputs] features."""

    n_outputs: int
    include_xyz: bool = False

    def update(self, step: int) -> None:
        """Called before every step with its number; schedules live here."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """The features without the coordinates themselves."""

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        encoded = self.encode(x)
        return torch.cat([2 * x - 1, encoded], dim=-1) if self.include_xyz else encoded


@encodings.register("HashGrid")
class HashGrid(Encoding):
    """Multi-resolution hash grid (Müller et al. 2022, Instant-NGP, sec. 3)."""

    @dataclass
    class Config:
        n_levels: int = 16
        """Number of resolutions."""
        n_features_per_level: int = 2
        """Learnt numbers per grid vertex."""
        log2_hashmap_size: int = 19
        """Largest number of vertices stored per level, as a power of two."""
        base_resolution: int = 16
        """Cells per side of the coarsest level."""
        per_level_scale: float = 1.447269237440378
        """Factor between the resolutions of neighbouring levels."""
        include_xyz: bool = False
        """Whether 2x - 1 precedes the features."""
        backend: Backend = "auto"
        """Implementation; a named one never falls back to another."""

    def __init__(self, config: "HashGrid.Config", n_inputs: int = 3):
        super().__init__()
        if n_inputs != 3:
            raise ConfigError(f"HashGrid encodes 3 coordinates, not {n_inputs}; choose SphericalHarmonics or Frequency")
        self.layout = ops.GridLayout(
            config.n_levels,
            config.n_features_per_level,
            config.log2_hashmap_size,
            config.base_resolution,
            config.per_level_scale,
        )
        self.backend: Backend = config.backend
        self.include_xyz = config.include_xyz
        self.n_active = config.n_levels
        self.table = nn.Parameter(torch.empty(self.layout.n_entries, config.n_features_per_level).uniform_(-1e-4, 1e-4))
        self.n_outputs = self.layout.n_outputs + 3 * self.include_xyz

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        encoded = ops.encode(x.T.contiguous(), self.table, self.layout, self.n_active, self.backend)
        return encoded.T

    def finest_cell(self) -> float:
        """Side of a cell of the finest active level, as a share of the unit cube."""
        return 1 / (self.layout.base_resolution * self.layout.per_level_scale ** (self.n_active - 1))


@encodings.register("ProgressiveBandHashGrid")
class ProgressiveBandHashGrid(HashGrid):
    """A hash grid whose fine levels switch on one after the other (Li et al. 2023, Neuralangelo, sec. 3.3).

    Locked levels are zero and are neither read nor written.
    """

    @dataclass
    class Config(HashGrid.Config):
        start_level: int = 4
        """Levels active at the beginning."""
        start_step: int = 0
        """Step from which levels are added."""
        update_steps: int = 1000
        """Steps between one added level and the next."""

        def last_changes(self) -> dict[str, int]:
            n_added = self.n_levels - self.start_level
            return {"update_steps": self.start_step + n_added * self.update_steps} if n_added > 0 else {}

    def __init__(self, config: "ProgressiveBandHashGrid.Config", n_inputs: int = 3):
        super().__init__(config, n_inputs)
        self.start_level = config.start_level
        self.start_step = config.start_step
        self.update_steps = config.update_steps
        self.update(0)
        self.first_cell = self.finest_cell()

    def update(self, step: int) -> None:
        added = max(step - self.start_step, 0) // self.update_steps
        self.n_active = min(self.start_level + added, self.layout.n_levels)


@encodings.register("VanillaFrequency")
class VanillaFrequency(Encoding):
    """sin and cos of 2^k x for every coordinate and k < n_frequencies (Mildenhall et al. 2020); bands can fade in."""

    scale = 1.0

    @dataclass
    class Config:
        n_frequencies: int = 10
        """Number of octaves."""
        n_masking_step: int = 0
        """Steps over which the octaves fade in one after the other; 0 shows all at once."""
        include_xyz: bool = False
        """Whether 2x - 1 precedes the features."""

        def last_changes(self) -> dict[str, int]:
            return {"n_masking_step": self.n_masking_step}

    def __init__(self, config: "VanillaFrequency.Config", n_inputs: int = 3):
        super().__init__()
        self.n_frequencies = config.n_frequencies
        self.n_masking_step = config.n_masking_step
        self.include_xyz = config.include_xyz
        self.n_outputs = 2 * n_inputs * config.n_frequencies + n_inputs * self.include_xyz
        self.register_buffer("bands", self.scale * 2.0 ** torch.arange(config.n_frequencies), persistent=False)
        self.register_buffer("mask", torch.ones(config.n_frequencies), persistent=False)
        self.bands: Tensor
        self.mask: Tensor
        self.update(0)

    def update(self, step: int) -> None:
        if self.n_masking_step <= 0:
            return
        shown = step / self.n_masking_step * self.n_frequencies
        shares = [min(max(shown - k, 0), 1) for k in range(self.n_frequencies)]
        mask = torch.tensor([0.5 * (1 - math.cos(math.pi * share)) for share in shares])
        # Such a copy does not wait for a GPU: what little it takes is read at once.
        self.mask.copy_(mask, non_blocking=True)

    def encode(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        angle = x[:, None, :] * self.bands[:, None]  # [N, K, D]
        waves = torch.stack([angle.sin(), angle.cos()], dim=2)  # [N, K, 2, D]
        return (waves * self.mask[:, None, None]).flatten(1)


@encodings.register("Frequency")
class Frequency(VanillaFrequency):
    """The same with angles 2^k pi x, as tiny-cuda-nn's encoding of that name."""

    scale = math.pi

    @dataclass
    class Config(VanillaFrequency.Config):
        pass


@encodings.register("SphericalHarmonics")
class SphericalHarmonics(Encoding):
    """Real spherical harmonics of a direction given as (d + 1) / 2."""

    @dataclass
    class Config:
        degree: int = 4
        """Number of bands, 1 to 4; there are degree^2 features."""
        include_xyz: bool = False
        """Whether the direction precedes the features."""
        backend: Backend = "auto"
        """Implementation; a named one never falls back to another."""

        def __post_init__(self) -> None:
            if not 1 <= self.degree <= 4:
                raise ConfigError(f"degree is {self.degree}, but must be 1, 2, 3 or 4")

    def __init__(self, config: "SphericalHarmonics.Config", n_inputs: int = 3):
        super().__init__()
        if n_inputs != 3:
            raise ConfigError(f"SphericalHarmonics encodes directions of 3 coordinates, not {n_inputs}")
        self.degree = config.degree
        self.backend: Backend = config.backend
        self.include_xyz = config.include_xyz
        self.n_outputs = config.degree**2 + 3 * self.include_xyz

    def encode(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        return ops.spherical_harmonics((2 * x - 1).T.contiguous(), self.degree, self.backend).T


@encodings.register("Identity")
class Identity(Encoding):
    """The coordinates as they are."""

    @dataclass
    class Config:
        include_xyz: bool = False
        """Whether 2x - 1 precedes the coordinates."""

    def __init__(self, config: "Identity.Config", n_inputs: int = 3):
        super().__init__()
        self.include_xyz = config.include_xyz
        self.n_outputs = n_inputs * (1 + self.include_xyz)

    def encode(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        return x
