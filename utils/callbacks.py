"""What watches a training: a progress line, and a checkpoint that is never more than minutes old."""

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.callbacks.progress.progress_bar import ProgressBar
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

_REFRESH_SECONDS = 0.25
_LINE_SECONDS = 20.0


class ProgressLine(ProgressBar):
    """How far, how fast, how long still, and the logged numbers that are for the eye.

    A terminal gets a bar that moves; a file or a pipe gets a line now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._is_enabled = True
        self._progress: Progress | None = None

    def enable(self) -> None:
        self._is_enabled = True

    def disable(self) -> None:
        self._is_enabled = False

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._open("train", trainer.max_steps, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self._advance(trainer, module, trainer.global_step)

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._open("validate", int(sum(trainer.num_val_batches)), 0)

    def on_validation_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        self._advance(trainer, module, rest[2] + 1)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # A new bar: the time that rendering took is none of the steps'.
        if trainer.state.fn == TrainerFn.FITTING:
            self._open("train", trainer.max_steps, trainer.global_step)

    def on_test_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._open("test", int(sum(trainer.num_test_batches)), 0)

    def on_test_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        self._advance(trainer, module, rest[2] + 1)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The export that follows has bars of its own.
        self._close()

    def on_predict_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._open("predict", int(sum(trainer.num_predict_batches)), 0)

    def on_predict_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        self._advance(trainer, module, rest[2] + 1)

    def within(self, trainer: pl.Trainer, module: pl.LightningModule, share: float) -> None:
        """Goes on by a share, in [0, 1], of the item at hand; its end is told by Lightning."""
        if share < 1:
            self._advance(trainer, module, self._done + share)

    def on_exception(self, *_: Any) -> None:
        self._close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()

    def _open(self, name: str, total: int, done: int) -> None:
        self._close()
        self._name, self._total, self._first, self._done = name, total, done, done
        self._began = self._shown = time.monotonic()
        if self._is_enabled and self._console.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}")]
            self._progress = Progress(*columns, console=self._console, refresh_per_second=4, transient=True)
            self._task: TaskID = self._progress.add_task(
                name, total=max(total, 1), completed=done, numbers=f"{done}/{total}"
            )
            self._progress.start()

    def _advance(self, trainer: pl.Trainer, module: pl.LightningModule, done: float) -> None:
        now, self._done = time.monotonic(), int(done)
        pause = _LINE_SECONDS if self._progress is None else _REFRESH_SECONDS
        # Reading a logged number waits for the device, so it is done seldom.
        if not self._is_enabled or (now - self._shown < pause and done < self._total):
            return
        self._shown = now
        numbers = self._numbers(done, now)
        for name, value in self.get_metrics(trainer, module).items():
            if name != "v_num":
                numbers += f"  {name} {value:.4g}" if isinstance(value, float) else f"  {name} {value}"
        if self._progress is None:
            self._console.print(f"{self._name} {numbers}", highlight=False, soft_wrap=True)
        else:
            self._progress.update(self._task, completed=done, numbers=numbers)

    def _numbers(self, done: float, now: float) -> str:
        rate = (done - self._first) / max(now - self._began, 1e-6)
        left = (self._total - done) / rate if rate > 0 else 0.0
        minutes, seconds = divmod(round(left), 60)
        return f"{round(done, 1)}/{self._total}  {rate:.1f}/s  {minutes}:{seconds:02d} left"

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class LastCheckpoint(Callback):
    """Keeps `last.ckpt` young: every few minutes, at the end, and when the training is interrupted.

    The file is replaced in one move, so an interrupted write leaves the previous one.

    Args:
        folder: where it lies.
        minutes: time between two of them.
    """

    def __init__(self, folder: str | Path, minutes: float = 5.0) -> None:
        self.path = Path(folder) / "last.ckpt"
        self._seconds = 60 * minutes
        self._saved = time.monotonic()

    def on_train_start(self, *_: Any) -> None:
        self._saved = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        # Saving is done by all processes together, so all must agree that it is time; asking costs a message.
        if trainer.global_step % 50 == 0 and trainer.strategy.broadcast(time.monotonic() - self._saved > self._seconds):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.global_step == 0:
            return
        # An error on one of several processes cannot be answered together; Ctrl-C reaches all of them.
        is_together = trainer.world_size == 1 or isinstance(exception, KeyboardInterrupt)
        if is_together and all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        draft = self.path.with_suffix(".ckpt.part")
        trainer.save_checkpoint(draft)
        if trainer.is_global_zero:
            os.replace(draft, self.path)
        self._saved = time.monotonic()
