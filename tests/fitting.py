"""Training a shipped configuration in this process, without the tests and files that end a run."""

from pathlib import Path

from datasets import datasets
from datasets.module import SceneData
from systems import systems
from systems.experiment import Experiment
from systems.reconstruction import Reconstruction
from systems.trainer import make_trainer, read_checkpoint
from utils.config import load, parse
from utils.run_directory import add_run_keys


def fit(config: Path, folder: Path, *words: str, resume: Path | None = None) -> Reconstruction:
    """Trains on the CPU, with `key=value` words, and returns the system; its checkpoints are under the folder."""
    tree = load(config, ["trainer.limit_val_batches=0", "trainer.log_every_n_steps=1", *words])
    add_run_keys(tree, {"exp_dir": str(folder), "train": True, "resume": None, "resume_weights_only": False})
    experiment = parse(Experiment, tree)
    system = systems.make(experiment.system, experiment)
    if resume is not None:
        read_checkpoint(resume, system)
    trainer = make_trainer(experiment, "none", folder / "runs")
    trainer.fit(system, SceneData(datasets.make(experiment.dataset)), ckpt_path=resume, weights_only=True)
    return system
