"""A watch over the sharpness of surfaces, the first number to tell that a training fails."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from utils.notice import notice

KEPT = 0.5
"""Share of its largest value so far that the sharpness of a good run never falls below."""
GROWTH = 1.2
"""Factor by which a good run has grown it at half of its steps; those measured had 3 and more."""


class SharpnessWatch(Callback):
    """Warns once when `train/inv_s`, the inverse width of a surface, falls or does not grow.

    Surfaces start blurred and sharpen as photographs agree on them. One that dissolves into fog again, or never leaves
    it, has a low sharpness long before its mesh is looked at. Models without a sharpness are not watched.
    """

    def __init__(self) -> None:
        self._first = self._largest = 0.0
        self._has_warned = False

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first, "largest": self._largest, "has_warned": self._has_warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first, self._largest = state_dict["first"], state_dict["largest"]
        self._has_warned = state_dict["has_warned"]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # Only where it was logged: reading it waits for the device.
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            now = trainer.callback_metrics.get("train/inv_s")
            if now is not None:
                self.see(float(now), trainer.global_step, trainer.max_steps)

    def see(self, sharpness: float, step: int, max_steps: int) -> None:
        """Takes note of the sharpness after a step; `max_steps` may be -1, which means no end."""
        self._first = self._first or sharpness
        self._largest = max(self._largest, sharpness)
        if self._has_warned:
            return
        if sharpness < KEPT * self._largest:
            self._has_warned = True
            notice(
                f"the sharpness inv_s has fallen from {self._largest:.3g} to {sharpness:.3g} at step {step}: the "
                "surface dissolves into fog; lengthen the warm-up of the learning rate (system.warmup_steps) or lower "
                "it (system.optimizer), and look at cameras and masks (--inspect)"
            )
        elif max_steps > 0 and 2 * step >= max_steps and sharpness < GROWTH * self._first:
            self._has_warned = True
            notice(
                f"the sharpness inv_s is {sharpness:.3g} at step {step}, after {self._first:.3g} at first: the "
                "photographs do not agree on a surface; look at cameras, masks and model.radius (--inspect), or raise "
                "the learning rate of the variance (system.optimizer.params.variance.lr)"
            )
