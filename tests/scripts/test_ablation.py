"""Laws of the ablation: rows are trained once, go on after an interruption, and end in one table."""

import csv
import json
import signal
import sys
from pathlib import Path

import pytest

import launch
from scripts import ablation, evaluate
from systems.experiment import Experiment
from utils.config import load, parse
from utils.run_directory import add_run_keys

TINY = [
    *("dataset.n_train_views=6", "dataset.n_test_views=2", "dataset.size=24", "dataset.samples_per_pixel=4"),
    *("model.samples_per_step=1024", "model.occupancy.resolution=32", "model.geometry.isosurface.resolution=32"),
    "model.geometry.xyz_encoding_config.log2_hashmap_size=10",
]


@pytest.mark.parametrize("preset", ["demo", "neus-blender-fast"])
def test_every_row_is_a_valid_configuration_that_differs_from_the_first(preset, tmp_path):
    rows = ablation.variants(100)
    assert len(rows) <= 12 and len({row.name for row in rows}) == len(rows)
    seen = []
    for row in rows:
        missing = [] if preset == "demo" else ["dataset.scene=lego"]
        config = load(ablation.ROOT / f"configs/{preset}.yaml", [*missing, "trainer.max_steps=100", *row.keys])
        add_run_keys(config, {"exp_dir": str(tmp_path), "train": False})
        experiment = parse(Experiment, config)
        assert (experiment.model, experiment.system) not in seen
        seen.append((experiment.model, experiment.system))


ALL = ("test", "geometry", "geometry_visible", "training")


def finish(folder: Path, psnr: float, sections: tuple[str, ...] = ALL) -> None:
    surface = {"chamfer": 0.01, "chamfer_percent": 0.5, "normal_consistency": 0.9, "f_score@0.5%": 0.8, "accuracy": 1.0}
    content = {
        "test": {"psnr": psnr},
        "geometry": surface,
        "geometry_visible": surface,
        "training": {"minutes": 4.0, "steps_per_second": 20.0},
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({name: content[name] for name in sections}))


def test_finished_rows_are_skipped_and_interrupted_ones_go_on(tmp_path, monkeypatch, capsys):
    root = tmp_path / "synthetic-50"
    finish(root / "base/@1", 30.0)
    finish(root / "volsdf/@1", 0.0, ("geometry",))  # meshed, but not yet tested
    (root / "volsdf/@1/ckpt").mkdir()
    (root / "volsdf/@1/ckpt/last.ckpt").touch()
    commands = []

    def train(words: list[str]) -> int:
        commands.append(words)
        if "--resume" not in words:
            return 1
        (root / "volsdf/@1/metrics.json").unlink()
        (root / "volsdf/@1/ckpt/last.ckpt").unlink()
        (root / "volsdf/@1/ckpt").rmdir()
        (root / "volsdf/@1").rmdir()
        finish(root / "volsdf/@1", 31.0)
        return 0

    monkeypatch.setattr(ablation, "run", train)
    words = ["--exp_dir", str(tmp_path), "--steps", "50", "--rows", "base", "volsdf", "no-mask"]
    assert ablation.main(words) == 1  # one row failed, the others are in the table
    resumed, fresh = commands
    assert resumed[resumed.index("--resume") + 1] == str(root / "volsdf/@1/ckpt/last.ckpt")
    assert resumed[resumed.index("--config") + 1] == str(root / "volsdf/@1/config/parsed.yaml")
    assert {"name=no-mask", "trainer.max_steps=50", "system.loss.lambda_mask=0.0"} <= set(fresh)
    said = capsys.readouterr().out
    table = [line for line in said.splitlines() if line.startswith("|")]
    assert table[0] == (
        "| run | PSNR, dB | Chamfer, scene units | Chamfer, % of diameter | F-score at 0.5 % | normal consistency | "
        "steps/s | minutes |"
    )
    assert table[2].startswith("| base: the preset | 30 |") and table[3].startswith("| volsdf: VolSDF opacity | 31 |")
    assert "* no-mask: not finished" in said and str(root / "table.csv") in said
    with (root / "table.csv").open() as file:
        assert [row[1] for row in csv.reader(file)] == ["PSNR, dB", "30.0", "31.0"]


@pytest.mark.parametrize("has_truth", [True, False])
def test_a_surface_is_measured_once_where_the_true_one_is_known(has_truth, tmp_path, monkeypatch, capsys):
    path = tmp_path / "synthetic-50/base/@1"
    finish(path, 30.0, ("test", "geometry", "training") if has_truth else ("test", "training"))
    commands = []
    monkeypatch.setattr(ablation, "run", lambda words: commands.append(words) or 0)
    assert ablation.main(["--exp_dir", str(tmp_path), "--steps", "50", "--rows", "base"]) == 0
    assert [words[1:] for words in commands] == [
        [str(ablation.ROOT / "scripts/evaluate.py"), str(path), "--visible", "test"]
    ] * has_truth


def test_the_rows_of_a_scene_read_it(tmp_path):
    scene = tmp_path / "lego"
    scene.mkdir()
    arguments = ablation.parse_arguments(["--scene", str(scene), "--surface", "points.ply", "a.b=1", "--rows", "base"])
    words = ablation.command(arguments.chosen[0], tmp_path / "exp/base", arguments)
    assert str(ablation.ROOT / "configs/neus-blender-fast.yaml") in words
    assert {f"dataset.root_dir={scene}", "dataset.scene=lego", "dataset.surface_file=points.ply", "a.b=1"} <= set(words)


def test_an_interruption_waits_for_the_child(tmp_path):
    # The child, once it runs, presses Ctrl-C on its parent, hears of it once, and saves in its own time.
    saved = tmp_path / "saved"
    child = (
        "import os, signal, sys, time\n"
        "heard = []\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "while not heard: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "open(sys.argv[1], 'w').write(str(len(heard)))\n"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert ablation.run([sys.executable, "-c", child, str(saved)]) == ablation.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert saved.read_text() == "1"


def test_a_row_trains_for_real_and_only_once(tmp_path, capfd, monkeypatch):
    # In this process: a new one needs seconds for its imports.
    monkeypatch.delenv("INSTANT_SURFACES_TRIAL", raising=False)
    programs = {"launch.py": launch.main, "evaluate.py": evaluate.main}
    monkeypatch.setattr(ablation, "run", lambda words: programs[Path(words[1]).name](words[2:]))
    words = ["--exp_dir", str(tmp_path), "--rows", "volsdf", "--steps", "4", "--gpu", "none", *TINY]
    assert ablation.main(words) == 0
    said = capfd.readouterr().out
    assert "row 1 of 1, volsdf" in said
    (run,) = (tmp_path / "synthetic-4/volsdf").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["geometry_visible"]["chamfer"] > 0
    assert metrics["step"] == 4 and metrics["training"]["steps_per_second"] > 0
    assert f"| volsdf: VolSDF opacity | {metrics['test']['psnr']:.4g} |" in said
    assert ablation.main(words) == 0
    assert "row 1" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (["--rows", "volsfd"], "--rows volsfd: unknown (did you mean 'volsdf'?); known: base"),
        (["--steps", "0"], "--steps 0: expected at least 1"),
        (["--scene", "nowhere"], "--scene nowhere: no such folder"),
        (["--surface", "a.ply"], "--surface has no effect on the synthetic scene"),
    ],
)
def test_mistakes_are_told_in_one_line(words, said, capsys):
    assert ablation.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
