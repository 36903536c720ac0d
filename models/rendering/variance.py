"""The learnt sharpness of a distance field's surface."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.registry import ConfigError


@dataclass
class VarianceConfig:
    """The width of the surface; `s = exp(10 v)` is its inverse."""

    init_val: float = 0.3
    """First value of v."""
    modulate: bool = False
    """Whether the growth of s is limited."""
    mod_start_steps: int = 0
    """Step from which it is."""
    reach_max_steps: int = 0
    """Step at which max_inv_s is allowed."""
    max_inv_s: float = math.inf
    """Largest s, inverse world units."""

    def __post_init__(self) -> None:
        if self.modulate and (self.reach_max_steps <= 0 or not math.isfinite(self.max_inv_s)):
            raise ConfigError("modulate needs reach_max_steps and max_inv_s; give both, or set modulate to false")


class Variance(nn.Module):
    """The learnt sharpness of the surface, one number for the whole scene."""

    limit_from: Tensor

    def __init__(self, config: VarianceConfig):
        super().__init__()
        self.config = config
        self.variance = nn.Parameter(torch.tensor(config.init_val))
        # What s was when its modulation began; a buffer, so that a resumed run goes on from there.
        self.register_buffer("limit_from", torch.exp(torch.tensor(10 * config.init_val)))
        self.limit = math.inf
        # The same on the host, read once: every look at a GPU waits for it.
        self._limit_from: float | None = None
        self.register_load_state_dict_post_hook(lambda *_: setattr(self, "_limit_from", None))

    def update(self, step: int) -> None:
        config = self.config
        if not config.modulate:
            return
        if step < config.mod_start_steps:
            self.limit_from.copy_(torch.exp(10 * self.variance.detach()))
            self.limit, self._limit_from = math.inf, None
        else:
            self._limit_from = start = self.limit_from.item() if self._limit_from is None else self._limit_from
            grown = step / config.reach_max_steps * (config.max_inv_s - start) + start
            self.limit = min(grown, config.max_inv_s)

    def forward(self) -> Float[Tensor, ""]:
        """s, inverse world units."""
        return torch.exp(10 * self.variance).clamp(1e-6, min(self.limit, 1e6))
