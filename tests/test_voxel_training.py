"""Grids that change their resolution and their box while they are trained, and the checkpoints of that."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tests.fitting import fit
from tests.test_training import ROOT, TINY_DATA, assert_same, checkpoint

CONFIG = ROOT / "configs/voxels-synthetic.yaml"
FUNCTION, GRID = "model.implicit_function", "model.functions.0.density_grid"


def tiny(*extra: str) -> list[str]:
    """The shipped configuration: finer at step 4, empty space known at 5, a crop at 6."""
    words = [f"dataset.{key}={value}" for key, value in TINY_DATA.items()]
    words += [f"{FUNCTION}.voxel_grid_density.resolution_changes={{0: [6, 6, 6], 4: [10, 8, 9]}}"]
    words += [f"{FUNCTION}.scaffold.{key}" for key in ("calculating_steps=[5]", "cropping_steps=[6]")]
    # So few steps make nothing dense; what is less so than the rest stands for what is empty.
    words += [f"{FUNCTION}.scaffold.{key}" for key in ("resolution=[8, 8, 8]", "max_pool_kernel_size=1")]
    words += [f"{FUNCTION}.scaffold.empty_space_threshold=0.08"]
    words += ["model.train_num_rays=32", "model.ray_sampler.n_pts_per_ray_training=32"]
    return [*words, "trainer.max_steps=8", "checkpoint.every_n_train_steps=1", *extra]


def trained(folder: Path, *words: str, resume: Path | None = None) -> dict[str, Any]:
    """The last checkpoint of a training."""
    fit(CONFIG, folder, *tiny(*words), resume=resume)
    (last,) = folder.rglob("last.ckpt")
    return checkpoint(last)


def test_a_run_resumed_on_either_side_of_a_change_is_bitwise_the_uninterrupted_one(tmp_path):
    whole = trained(tmp_path / "whole")
    assert whole["state_dict"][f"{GRID}._extra_state"].tolist() == [10, 8, 9]
    assert whole["state_dict"]["model.functions.0.scaffold.is_filled"]
    sides = whole["state_dict"][f"{GRID}.extents"]
    assert (sides > 0).all() and (sides < 2.5).any()
    for step, resolution in ((4, [6, 6, 6]), (7, [10, 8, 9])):
        (middle,) = (tmp_path / "whole").rglob(f"*step={step}.ckpt")
        assert checkpoint(middle)["state_dict"][f"{GRID}._extra_state"].tolist() == resolution
        resumed = trained(tmp_path / str(step), resume=middle)
        assert_same(whole["state_dict"], resumed["state_dict"])
        assert_same(whole["optimizer_states"], resumed["optimizer_states"])


def test_an_optimiser_begins_anew_with_what_was_replaced(tmp_path):
    (optimizer,) = trained(tmp_path, "trainer.max_steps=5")["optimizer_states"]
    steps = {
        group["name"]: {int(optimizer["state"][row]["step"]) for row in group["params"]}
        for group in optimizer["param_groups"]
    }
    # Factors changed before the fifth step; the basis and the decoder have made all five.
    assert steps == {
        "functions.0.density_grid": {1},
        "functions.0.color_grid": {1, 5},
        "functions.0.color_decoder": {5},
    }


def test_two_processes_change_together(tmp_path):
    words = tiny("trainer.devices=2", "system.name=witness-system", f"{FUNCTION}.isosurface=null")
    places = ["--gpu", "none", "--exp_dir", str(tmp_path / "exp"), "--runs_dir", str(tmp_path / "runs")]
    command = [sys.executable, "launch.py", "--config", str(CONFIG), "--train", *places, "trainer.limit_val_batches=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += ["--import", "tests/witness.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "exp/voxels-synthetic").iterdir()
    one, other = (torch.load(folder / f"save/witness-{rank}.pt", weights_only=True) for rank in range(2))
    assert_same(one["state"], other["state"])
    assert not torch.equal(one["pixels"], other["pixels"])
