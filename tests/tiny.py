"""A plug-in for tests of the command line: a data set, a model and a system that cost nothing."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from datasets import datasets
from datasets.cameras import Cameras
from datasets.views import Views
from models import models
from systems import systems
from systems.optim import OptimizerConfig, SchedulerConfig, make_optimizers


@datasets.register("tiny-data")
class Pixels:
    @dataclass
    class Config:
        n: int = 3
        """Number of views, one pixel each."""

    def __init__(self, config: "Pixels.Config"):
        self.config = config

    def views(self, split: str) -> Views:
        n = self.config.n
        pose, one = torch.eye(3, 4).expand(n, 3, 4), torch.ones(n, 2)
        cameras = Cameras(pose, one, one / 2, one.long())
        return Views(cameras, [str(row) for row in range(n)], torch.arange(n + 1), None)


@models.register("tiny-model")
class Line(nn.Module):
    @dataclass
    class Config:
        width: int = 4
        """Inputs."""

    def __init__(self, config: "Line.Config"):
        super().__init__()
        self.line = nn.Linear(config.width, 1)


@systems.register("tiny-system")
class Fit(pl.LightningModule):
    @dataclass
    class Config:
        optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
        """Optimiser."""
        scheduler: SchedulerConfig | None = None
        """Learning rate."""
        interrupt_at: int = -1
        """Step at which Ctrl-C is pressed."""
        seconds: float = 0.0
        """Duration of a step."""

    def __init__(self, config: "Fit.Config", experiment: Any):
        super().__init__()
        self.config, self.experiment = config, experiment
        self.model = models.make(experiment.model)

    def configure_optimizers(self) -> Any:
        return make_optimizers(self.config.optimizer, self.config.scheduler, self.model)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == self.config.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(self.config.seconds)
        loss = self.model.line(torch.ones(1, self.model.line.in_features, device=self.device)).square().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, index: torch.Tensor, batch_idx: int) -> None:
        self._mark(f"val-{int(index)}")

    def test_step(self, index: torch.Tensor, batch_idx: int) -> None:
        self._mark(f"test-{int(index)}")

    def predict_step(self, index: torch.Tensor, batch_idx: int) -> None:
        self._mark(f"predict-{int(index)}")

    def export(self, data: Any) -> list[Path]:
        return [self._mark("mesh")]

    def load_model_weights(self, checkpoint: dict[str, Any]) -> None:
        self.load_state_dict(checkpoint["state_dict"])

    def _mark(self, name: str) -> Path:
        path = Path(self.experiment.save_dir) / f"{name}-{self.global_rank}"
        path.write_text("")
        return path
