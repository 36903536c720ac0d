"""Where a training step spends its time: every moment belongs to exactly one phase."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from models.rendering.marching import March
from systems.loss_functions import LossSet

REST, MODEL = "Lightning", "rest of the model"
ORDER = (
    "draw rays",
    "occupancy",
    "march",
    "query without gradients",
    "geometry",
    "texture",
    MODEL,
    "losses",
    "backward",
    "optimiser",
    "logging",
    REST,
)


class Phases(Callback):
    """A stack of running phases, of which the uppermost is charged; what nobody claims is Lightning's.

    On CUDA every change of phase waits for the device, so phases add up to more than an undisturbed step.
    """

    def __init__(self, n_skipped: int) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.n_steps = -n_skipped
        self._stack = [REST]
        self._last = 0.0

    def enter(self, name: str) -> None:
        self._charge()
        self._stack.append(name)

    def leave(self) -> None:
        self._charge()
        self._stack.pop()

    def timed(self, function: Callable[..., Any], name: str, within: str | None = None) -> Callable[..., Any]:
        """The same function as a phase; if `within` is given, only where that phase calls it."""

        def run(*arguments: Any, **options: Any) -> Any:
            if within not in (None, self._stack[-1]):
                return function(*arguments, **options)
            self.enter(name)
            try:
                return function(*arguments, **options)
            finally:
                self.leave()

        return run

    def milliseconds(self) -> dict[str, float]:
        """Per step, in the order in which things happen."""
        return {name: 1e3 * self.seconds[name] / self.n_steps for name in ORDER if name in self.seconds}

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.optimizers[0].register_step_post_hook(lambda *_: self.leave())
        self._last = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self._charge()
        self.n_steps += 1
        if self.n_steps == 0:
            self.seconds.clear()

    def on_before_backward(self, *_: Any) -> None:
        self.enter("backward")

    def on_after_backward(self, *_: Any) -> None:
        self.leave()

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.enter("optimiser")

    def _charge(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._last
        self._last = now


@contextmanager
def watched(system: Any, phases: Phases) -> Iterator[None]:
    """The parts of a system as phases, for a while."""
    model, geometry = system.model, system.model.geometry
    # Occupancy and finite differences ask for it, too, but that time is theirs.
    query = "sdf" if model.is_distance else "density"
    parts = [
        (system, "_draw_rays", "draw rays", None),
        (system, "_log_training", "logging", None),
        (model, "forward", MODEL, None),
        (model.occupancy, "refresh", "occupancy", None),
        (geometry, query, "query without gradients", MODEL),
        (geometry, "forward", "geometry", None),
        (model.texture, "forward", "texture", None),
    ]
    with ExitStack() as stack:
        for part, method, name, within in parts:
            stack.enter_context(patch.object(part, method, phases.timed(getattr(part, method), name, within)))
        # Called as objects, which only their class can change.
        for kind, name in ((March, "march"), (LossSet, "losses")):
            stack.enter_context(patch.object(kind, "__call__", _method(phases.timed(kind.__call__, name))))
        yield


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        return function(self, *arguments, **options)

    return call
