"""Photographs are scored, and a camera path, where there is one, makes the video."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio

from tests.moved import N_FRAMES
from tests.test_training import MOVED, ROOT, demo, tiny


def check(folder: Path) -> None:
    result = json.loads((folder / "metrics.json").read_text())["test"]
    assert result["n_views"] == 2 and [view["view"] for view in result["views"]] == ["test_000", "test_001"]
    assert all("psnr" in view for view in result["views"])
    assert len(list(folder.glob("save/it*-test/*.png"))) == 2
    assert len(list(folder.glob("save/it*-path/*.png"))) == N_FRAMES
    (video,) = folder.glob("save/*-test.mp4")
    # Placeholders are not shown: render, depth and normals of 20 x 16 pixels.
    assert imageio.imread(video).shape == (N_FRAMES, 16, 3 * 20, 3)


def test_photographs_are_scored_and_the_path_is_filmed(tmp_path: Path) -> None:
    check(demo(tmp_path, *MOVED))


def test_several_processes_share_the_frames_of_the_path(tmp_path: Path) -> None:
    command = [sys.executable, "launch.py", "--config", "configs/demo.yaml", "--train", "--gpu", "none"]
    command += ["--import", "tests/moved.py", "--exp_dir", str(tmp_path / "exp"), "--runs_dir", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("INSTANT_SURFACES_TRIAL", None)
    words = tiny(*MOVED, "trainer.devices=2", "trainer.max_steps=4")
    done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    check(next((tmp_path / "exp" / "demo").iterdir()))
