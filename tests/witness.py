"""A plug-in for tests with several processes: a system that writes down what each process ended with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from systems import systems
from systems.reconstruction import Reconstruction
from utils.types import RayBatch


@systems.register("witness-system")
class Witness(Reconstruction):
    @dataclass
    class Config(Reconstruction.Config):
        name: str = "witness-system"  # type: ignore[assignment]
        """Its own name."""

    def _draw_rays(self) -> RayBatch:
        batch = super()._draw_rays()
        if not hasattr(self, "pixels"):
            self.pixels = batch.rays.pixel[:16].clone()
        return batch

    def on_train_end(self, *_: Any) -> None:
        state = {
            "state": dict(self.model.named_parameters()),
            "step": self.global_step,
            "pixels": self.pixels,
        }
        torch.save(state, Path(self.experiment.save_dir) / f"witness-{self.global_rank}.pt")
