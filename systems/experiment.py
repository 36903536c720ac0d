"""The schema of a configuration file."""

from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from datasets import datasets
from models import models
from systems import systems
from systems.export import ExportConfig
from utils.config import slot
from utils.registry import ConfigError
from utils.signature import check_arguments


def _added() -> Any:
    """A key that `utils.run_directory.add_run_keys` gives where the file does not."""
    return field(metadata={"is_added": True})


@dataclass(kw_only=True)
class Experiment:
    """Everything that a run depends on. The keys after `trainer` are the program's."""

    name: str
    """Folder of the experiment's runs."""
    tag: str = ""
    """Beginning of the run's name, before its date."""
    seed: int = _added()
    """Root of all randomness; without it the clock chooses, and parsed.yaml tells."""
    dataset: object = slot(datasets)
    """Photographs and cameras."""
    model: object = slot(models)
    """What is learnt."""
    system: object = slot(systems)
    """Losses, optimiser and learning rates."""
    checkpoint: dict[str, Any] = field(default_factory=dict)
    """Arguments of Lightning's ModelCheckpoint; last.ckpt is written besides, every five minutes and at the end."""
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of the metrics of pictures, such as metrics.lpips.weights=FILE."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """How the result is meshed and textured."""
    trainer: dict[str, Any]
    """Arguments of Lightning's Trainer; the device comes from --gpu."""

    cmd_args: dict[str, Any] = field(default_factory=dict)
    """The command line."""
    trial_name: str = _added()
    """Folder of the run, `<tag>@<date>-<time>`."""
    exp_dir: str = _added()
    """Folder that holds it."""
    save_dir: str = _added()
    """Folder of images, videos and meshes."""
    ckpt_dir: str = _added()
    """Folder of checkpoints."""
    code_dir: str = _added()
    """Folder of the sources' copy."""
    config_dir: str = _added()
    """Folder of parsed.yaml and raw.yaml."""

    def __post_init__(self) -> None:
        taken = ("accelerator", "logger", "callbacks", "default_root_dir", "inference_mode")
        self.trainer = check_arguments(pl.Trainer, self.trainer, "trainer", reserved=taken)
        self.checkpoint = check_arguments(ModelCheckpoint, self.checkpoint, "checkpoint", reserved=("dirpath",))
        if not {"max_steps", "max_epochs", "max_time"} & self.trainer.keys():
            raise ConfigError("trainer.max_steps is required: add trainer.max_steps=VALUE to the command line")
