"""Laws of what watches a training."""

import logging
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from utils.callbacks import LastCheckpoint, ProgressLine


class Line(pl.LightningModule):
    """Breaks at a step, its weights first."""

    def __init__(self, breaks_at: int = -1) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.breaks_at = breaks_at

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == self.breaks_at:
            nn.init.constant_(self.line.weight, float("nan"))
            raise RuntimeError("broken")
        loss = self.line(batch).square().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss


def fit(module: Line, callback: Callback, max_steps: int = 120) -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=isinstance(callback, ProgressLine),
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.ones(1000, 1)))


def step(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


def test_the_last_checkpoint_stands_at_the_end_and_leaves_no_draft(tmp_path: Path) -> None:
    fit(Line(), LastCheckpoint(tmp_path))
    assert step(tmp_path / "last.ckpt") == 120
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_broken_weights_do_not_replace_a_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        fit(Line(breaks_at=70), LastCheckpoint(tmp_path, minutes=0.0))
    # Due all the time, it is renewed every 50 steps.
    assert step(tmp_path / "last.ckpt") == 50


def test_an_error_saves_what_was_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.init, "constant_", lambda *_: None)
    with pytest.raises(RuntimeError, match="broken"):
        fit(Line(breaks_at=70), LastCheckpoint(tmp_path))
    assert step(tmp_path / "last.ckpt") == 70


def test_without_a_terminal_progress_is_a_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Line(), ProgressLine(), max_steps=30)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("train 30/30  ")
    assert "/s  0:00 left  train/loss " in line


def test_an_item_that_takes_long_is_told_in_parts(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    trainer, module = pl.Trainer(logger=False, accelerator="cpu"), Line()
    line, clock = ProgressLine(), iter([0.0, 30.0, 31.0, 60.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr(line, "get_metrics", lambda *_: {})
    line._open("test", 2, 0)
    for share in (0.25, 0.5, 1.0):  # the second comes too soon, the last is told by Lightning
        line.within(trainer, module, share)
    line.on_test_batch_end(trainer, module, None, None, 1)
    told = [words for words in capsys.readouterr().out.splitlines() if words.startswith("test")]
    assert told == ["test 0.2/2  0.0/s  3:30 left", "test 2/2  0.0/s  0:00 left"]
