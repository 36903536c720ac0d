"""Times of candidates that take turns, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Job = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """What one candidate took, milliseconds, in the order of the rounds."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def elapsed(job: Job, device: torch.device) -> float:
    """Milliseconds of one run; on CUDA between two events of the stream, idle gaps between kernels included."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        begin.record()
        job()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)
    began = time.perf_counter()
    job()
    return 1e3 * (time.perf_counter() - began)


def take_turns(jobs: Mapping[str, Job], rounds: int, device: torch.device) -> dict[str, Times]:
    """Every job once in every round, after a first round that only warms up."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for round_ in range(-1, rounds):
        for name, job in jobs.items():
            spent = elapsed(job, device)
            if round_ >= 0:
                times[name].append(spent)
    return {name: Times(values) for name, values in times.items()}
