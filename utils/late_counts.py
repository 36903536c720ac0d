"""How many samples the last steps had, for a host that does not wait for the GPU that counts them."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

LAG = 2  # steps that the GPU may be behind before the host waits for it
WINDOW = 32  # steps that are remembered


class LateCounts(nn.Module):
    """Numbers of samples of steps, each with the number of their rays.

    What a GPU counts travels to the host for `LAG` steps. That is told by steps and never by time, so a training can
    be repeated. What the host knows itself is there at once. No buffer can hold what is on its way: a system puts
    `state` of all its `LateCounts` into checkpoints.

    Attributes:
        recent: samples and rays of the last steps that have become known, oldest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recent: deque[tuple[int, int]] = deque(maxlen=WINDOW)
        self._travelling: deque[tuple[Callable[[], int], int]] = deque()

    def exchange(self, n_samples: int | Int[Tensor, ""], n_rays: int) -> list[tuple[int, int]]:
        """Hands in the present step; returns samples and rays of those that become known, oldest first.

        Args:
            n_samples: a number on the host, or on a GPU.
            n_rays: that had them.
        """
        is_late = isinstance(n_samples, Tensor)
        self._travelling.append((_sent(n_samples) if isinstance(n_samples, Tensor) else _known(n_samples), n_rays))
        known = self._arrived(len(self._travelling) - (LAG if is_late else 0))
        self.recent.extend(known)
        return known

    def state(self) -> dict[str, list[list[int]]]:
        """What a resumed training needs to go on as if nothing had happened; waits for what travels."""
        travelling = self._arrived(len(self._travelling))
        self._depart(travelling)
        return {"recent": [list(pair) for pair in self.recent], "travelling": [list(pair) for pair in travelling]}

    def restore(self, state: dict[str, Any]) -> None:
        self.recent = deque(map(tuple, state["recent"]), maxlen=WINDOW)
        self._travelling.clear()
        self._depart(state["travelling"])

    def _arrived(self, n: int) -> list[tuple[int, int]]:
        """The first `n` of those that travel, off their way."""
        return [(read(), n_rays) for read, n_rays in (self._travelling.popleft() for _ in range(n))]

    def _depart(self, pairs: Any) -> None:
        self._travelling.extend((_known(n_samples), n_rays) for n_samples, n_rays in pairs)


def _known(number: int) -> Callable[[], int]:
    return lambda: number


def _sent(number: Int[Tensor, ""]) -> Callable[[], int]:
    """Begins to copy a number to the host; the function waits until it is there."""
    if not number.is_cuda:
        return lambda: int(number)
    host = torch.empty((), dtype=number.dtype, pin_memory=True)
    host.copy_(number, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()

    def read() -> int:
        arrival.synchronize()
        return int(host)

    return read
