"""Lightning's Trainer for an experiment: device, precision, loggers and callbacks; and the checkpoints it takes."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from systems.experiment import Experiment
from systems.sharpness import SharpnessWatch
from utils.callbacks import LastCheckpoint, ProgressLine
from utils.notice import notice
from utils.registry import ConfigError


def make_trainer(experiment: Experiment, gpu: str | None, runs_dir: Path | None = None) -> pl.Trainer:
    """A trainer on the devices that the command line asks for.

    Args:
        experiment: its `trainer` section wins over everything chosen here, but for the precision on a CPU.
        gpu: ids of CUDA devices, "none" for the CPU, "mps", or None for the first CUDA device if there is one.
        runs_dir: root of TensorBoard logs; None where nothing is trained, and then nothing is logged or saved.

    Raises:
        ConfigError: a device that is not there, or options that Lightning refuses.
    """
    # Without gradients, but not in inference mode: normals of a traced surface are gradients, in a test, too.
    options: dict[str, Any] = {"enable_model_summary": False, "inference_mode": False}
    options |= _device(gpu) | experiment.trainer
    options["precision"] = _precision(options.get("precision"), options["accelerator"])
    callbacks: list[Callback] = [ProgressLine()] if options.get("enable_progress_bar", True) else []
    if runs_dir is None:
        options |= {"logger": False, "enable_checkpointing": False}
    else:
        folder, name, trial = experiment.exp_dir, experiment.name, experiment.trial_name
        options["logger"] = [
            TensorBoardLogger(str(runs_dir), name=name, version=trial),
            CSVLogger(folder, name=trial, version=_free_name(Path(folder) / trial, "csv_logs")),
        ]
        callbacks += [LearningRateMonitor("step"), SharpnessWatch()]
        if options.get("enable_checkpointing", True):
            callbacks += [
                ModelCheckpoint(experiment.ckpt_dir, **experiment.checkpoint),
                LastCheckpoint(experiment.ckpt_dir),
            ]
    try:
        return pl.Trainer(callbacks=callbacks, **options)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {str(error).splitlines()[0]}") from error


def read_checkpoint(path: Path, system: pl.LightningModule, prefix: str = "") -> dict[str, Any]:
    """A checkpoint on the CPU, after a look whether its tensors are those of a system.

    Args:
        path: of the file.
        system: what it shall be loaded into.
        prefix: beginning of the names that matter.

    Raises:
        ConfigError: not a checkpoint, or one of another configuration.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        saved = checkpoint["state_dict"]
    except Exception as error:
        # torch.load raises a dozen kinds of errors for files that are not its own.
        raise ConfigError(f"{path} is not a checkpoint of this program ({str(error).splitlines()[0]})") from error
    shapes, found = (_shapes(state, prefix) for state in (system.state_dict(), saved))
    for name in [*shapes, *found]:
        # What has no rows yet gets as many as the checkpoint has.
        is_open = name in found and shapes.get(name, ())[:1] == (0,)
        if shapes.get(name) != found.get(name) and not is_open:
            here, there = (_shape(one.get(name)) for one in (shapes, found))
            raise ConfigError(
                f"{path} comes from another configuration: {name} is {there} there and {here} here; "
                "use the config/parsed.yaml of its run"
            )
    return checkpoint


def _shapes(state: dict[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a state; parts may save other things, too, such as the names that codes belong to."""
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith(prefix)}


def _free_name(folder: Path, name: str) -> str:
    """`name`, or `name-2` and so on in the folder of a resumed run, whose numbers the logger would delete."""
    names = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not (folder / name).exists())


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _device(gpu: str | None) -> dict[str, Any]:
    n_visible = torch.cuda.device_count()
    if gpu == "none" or (gpu is None and n_visible == 0):
        if gpu is None:
            notice("no CUDA device is visible; running on the CPU")
        return {"accelerator": "cpu", "devices": 1}
    if gpu == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("--gpu mps: this machine or this torch has no Metal device; use --gpu none")
        return {"accelerator": "mps", "devices": 1}
    n_wanted = 1 if gpu is None else len(gpu.split(","))
    if n_visible < n_wanted:
        raise ConfigError(f"--gpu {gpu}: torch sees {n_visible} of these CUDA devices; use --gpu none for the CPU")
    return {"accelerator": "gpu", "devices": n_wanted}


def _precision(precision: Any, accelerator: str) -> Any:
    if str(precision) not in ("16", "16-mixed"):
        return precision
    if accelerator == "gpu":
        return "16-mixed"
    notice(f"trainer.precision is {precision}, which only CUDA devices gain from; computing with 32 bits")
    return "32-true"
