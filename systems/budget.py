"""How many rays a training step takes, so that it always costs about the same."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from utils.late_counts import LateCounts
from utils.registry import ConfigError

# Steps in a row without a single sample after which training is stopped.
_PATIENCE = 100


class RayBudget(nn.Module):
    """Follows the number of samples per ray, which falls as empty space is found (Müller et al. 2022, Instant-NGP).

    n <- min(0.9 n + 0.1 m B / S, limit) for S samples of m rays and a budget of B. These are the rays of the same step,
    or, where only a GPU knows S, of a step before. The state is a buffer, so a resumed run goes on with the rays it
    had; what is on its way from a GPU is that of `counts`.

    Args:
        n_rays: rays of the first step.
        limit: largest number of rays.
        n_samples: samples a step aims at.
        is_dynamic: whether the number follows at all.
    """

    n: Tensor

    def __init__(self, n_rays: int, limit: int, n_samples: int, is_dynamic: bool = True):
        super().__init__()
        self.limit, self.n_samples, self.is_dynamic = limit, n_samples, is_dynamic
        self.register_buffer("n", torch.tensor(min(n_rays, limit) if is_dynamic else n_rays))
        self.counts = LateCounts()
        # The same as the buffer, which may lie on a GPU.
        self._n_rays: int | None = None
        self.register_load_state_dict_post_hook(lambda *_: setattr(self, "_n_rays", None))
        self.n_empty_steps = 0

    @property
    def n_rays(self) -> int:
        if self._n_rays is None:
            self._n_rays = int(self.n.item())
        return self._n_rays

    def update(self, n_samples: int | Int[Tensor, ""]) -> None:
        """Takes note of the samples that the present number of rays had.

        Raises:
            ConfigError: no ray has met an occupied cell for many steps.
        """
        for n_found, n_rays in self.counts.exchange(n_samples, self.n_rays):
            self._follow(n_found, n_rays)

    def _follow(self, n_samples: int, n_rays: int) -> None:
        if n_samples == 0:
            self.n_empty_steps += 1
            if self.n_empty_steps >= _PATIENCE:
                raise ConfigError(
                    f"no ray has met anything for {_PATIENCE} steps: the scene lies outside model.radius, the poses "
                    "point away from it, or training has collapsed; check model.radius, the cameras and the masks"
                )
            return
        self.n_empty_steps = 0
        if self.is_dynamic:
            wanted = int(n_rays * self.n_samples / n_samples)
            self._n_rays = max(1, min(int(0.9 * self.n_rays + 0.1 * wanted), self.limit))
            self.n.fill_(self._n_rays)
