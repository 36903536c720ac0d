"""From the command line to results, on scenes of a few thousand pixels."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy
import pytest
import torch
import trimesh
from omegaconf import OmegaConf

import launch
from systems import systems
from systems.automatic import automatic_keys, decided
from systems.experiment import Experiment
from systems.trainer import make_trainer
from tests.moved import TO_DATASET, Moved
from utils.config import parse, read, resolve
from utils.run_directory import add_run_keys

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("few_points")
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
TINY_DATA = {"name": "synthetic", "n_train_views": 6, "n_test_views": 2, "size": 24, "samples_per_pixel": 4}
MOVED = ("dataset.name=moved-data",)
TINY_GRID = {"n_levels": 4, "log2_hashmap_size": 10}


def tiny(*extra: str) -> list[str]:
    """The demo at a size that trains in a second or two."""
    words = [f"dataset.{key}={value}" for key, value in TINY_DATA.items()]
    words += [f"model.geometry.xyz_encoding_config.{key}={value}" for key, value in TINY_GRID.items()]
    words += ["model.samples_per_step=1024", "model.train_num_rays=64", "model.max_train_num_rays=256"]
    words += ["model.occupancy.resolution=32", "model.num_probes=64", "model.geometry.isosurface.resolution=32"]
    words += ["export.texture_faces=300", "export.texture_size=64", "trainer.limit_val_batches=0"]
    words += ["trainer.log_every_n_steps=5", "trainer.max_steps=40"]
    return [*words, *extra]


def run(folder: Path, *words: str) -> int:
    places = ["--exp_dir", str(folder / "exp"), "--runs_dir", str(folder / "runs"), "--gpu", "none"]
    os.environ.pop("INSTANT_SURFACES_TRIAL", None)
    return launch.main([*places, *words])


def demo(folder: Path, *words: str) -> Path:
    """Trains the tiny demo and returns the folder of its run."""
    Moved.read.clear()
    assert run(folder, "--config", str(ROOT / "configs/demo.yaml"), "--train", *tiny(*words)) == 0
    return next((folder / "exp" / "demo").iterdir())


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Bitwise equality of nested state."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for row, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{where}[{row}]")
    else:
        assert a == b, where


def test_the_demo_ends_with_video_textured_mesh_and_metrics(tmp_path, capsys):
    folder = demo(tmp_path, "export.keep_components=1")
    said = capsys.readouterr().out
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["step"] == 40
    assert metrics["test"]["n_views"] == 2 and 5 < metrics["test"]["psnr"] < 60 and 0 < metrics["test"]["ssim"] <= 1
    assert [view["psnr"] for view in metrics["test"]["views"]]
    assert metrics["mesh"]["faces"] > 100 and metrics["mesh"]["components"] == 1
    assert metrics["geometry"]["chamfer"] > 0
    texture = metrics["texture"]
    assert (texture["source"], texture["size"], texture["n_views"]) == ("field", 64, 2)
    assert 5 < texture["psnr"] < 60 and 5 < texture["psnr_on_mesh"] < 60 and 0 < texture["ssim"] <= 1
    for path in (*folder.glob("save/*.mp4"), *folder.glob("save/*.glb"), folder / "metrics.json"):
        assert str(path.resolve()) in said
    assert len(list(folder.glob("save/it40-test/*.png"))) == 2
    # What was trained on is drawn, and its cameras can be used with the mesh.
    assert (folder / "save/inspection.png").is_file() and (folder / "save/inspection.glb").is_file()
    cameras = json.loads((folder / "save/cameras.json").read_text())
    assert [frame["split"] for frame in cameras["frames"]] == 6 * ["train"] + 2 * ["test"]
    meshes = list(folder.glob("save/*.obj"))
    assert (
        len(meshes) == 2
        and list(folder.glob("save/*.ply"))
        and all(len(trimesh.load(path).vertices) for path in meshes)
    )
    for name in ("config/parsed.yaml", "config/raw.yaml", "code/launch.py", "ckpt/last.ckpt", "csv_logs/metrics.csv"):
        assert (folder / name).is_file()


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path):
    # 200 steps with a checkpoint at 100: whole, and again from 100.
    words = ("trainer.max_steps=200", "checkpoint.every_n_train_steps=100")
    whole = demo(tmp_path / "whole", *words)
    middle = next(whole.glob("ckpt/*step=100.ckpt"))
    resumed = demo(tmp_path / "resumed", *words, "--resume", str(middle))
    a, b = (checkpoint(folder / "ckpt/last.ckpt") for folder in (whole, resumed))
    assert a["global_step"] == b["global_step"] == 200
    assert_same(a["state_dict"], b["state_dict"])
    assert "budget.n" in a["state_dict"] and any("occupancy" in key for key in a["state_dict"])
    assert_same(a["optimizer_states"], b["optimizer_states"])
    assert_same(a["lr_schedulers"], b["lr_schedulers"])
    losses = [
        {row["step"]: row for row in _csv(folder) if row.get("train/loss") and int(row["step"]) >= 100}
        for folder in (whole, resumed)
    ]
    assert losses[0].keys() == losses[1].keys() and len(losses[0]) == 20
    for step, row in losses[0].items():
        for key in row:
            if key.startswith("train/") and key != "train/minutes":
                assert row[key] == losses[1][step][key], (step, key)


def test_a_checkpoint_is_tested_and_exported_at_its_own_step(tmp_path):
    trained = demo(tmp_path)
    parsed, last = str(trained / "config/parsed.yaml"), str(trained / "ckpt/last.ckpt")
    before = json.loads((trained / "metrics.json").read_text())
    (trained / "metrics.json").unlink()
    for path in trained.glob("save/*.*"):
        path.unlink()
    assert run(tmp_path, "--config", parsed, "--test", "--resume", last) == 0
    again = json.loads((trained / "metrics.json").read_text())
    assert again["step"] == 40 and again["test"] == before["test"] and again["mesh"] == before["mesh"]
    for path in trained.glob("save/*.*"):
        path.unlink()
    assert run(tmp_path, "--config", parsed, "--export", "--resume", last) == 0
    assert list(trained.glob("save/it40-*.glb"))
    from_field = json.loads((trained / "metrics.json").read_text())["texture"]
    words = ["--config", parsed, "--export", "--resume", last, "export.texture_source=photographs"]
    assert run(tmp_path, *words) == 0
    from_photographs = json.loads((trained / "metrics.json").read_text())["texture"]
    assert from_field == {key: before["texture"][key] for key in ("source", "size", "faces")}
    assert from_photographs["share_in_photographs"] > 0.3 and from_photographs["n_views"] == 2
    assert from_photographs["psnr_on_mesh"] != before["texture"]["psnr_on_mesh"]
    assert run(tmp_path, "--config", parsed, "--predict", "--resume", last) == 0
    assert len(list(trained.glob("save/it40-predict/*.png"))) == 6
    assert run(tmp_path, "--config", parsed, "--validate", "--resume", last, "trainer.limit_val_batches=1") == 0
    assert list(trained.glob("save/it40-0.png"))


def test_weights_alone_begin_a_new_run_at_step_zero(tmp_path):
    trained = demo(tmp_path / "first")
    last = str(trained / "ckpt/last.ckpt")
    again = demo(tmp_path / "second", "--resume", last, "--resume_weights_only", "trainer.max_steps=5")
    a, b = checkpoint(Path(last)), checkpoint(again / "ckpt/last.ckpt")
    assert b["global_step"] == 5 and b["state_dict"]["step"] == 5
    key = "model.geometry.network.network.directions.0"
    # Five steps of warm-up move weights a little; a fresh start is far away.
    assert (a["state_dict"][key] - b["state_dict"][key]).abs().max() < 0.1


def test_a_checkpoint_of_another_configuration_is_refused_in_one_line(tmp_path, capsys):
    trained = demo(tmp_path, "trainer.max_steps=2")
    capsys.readouterr()
    words = tiny("model.geometry.feature_dim=9", "--resume", str(trained / "ckpt/last.ckpt"))
    assert run(tmp_path, "--config", str(ROOT / "configs/demo.yaml"), "--train", *words) == 2
    said = capsys.readouterr().err.strip()
    assert "another configuration" in said and "geometry" in said and "\n" not in said


def test_an_empty_surface_is_explained_and_the_run_finishes(tmp_path, capsys):
    folder = demo(tmp_path, "trainer.max_steps=2", "model.geometry.isosurface.threshold=-100")
    said = capsys.readouterr().out
    assert "no mesh" in said and "threshold" in said
    assert json.loads((folder / "metrics.json").read_text())["mesh"] is None
    assert list(folder.glob("save/*.mp4"))


def test_an_inspection_tells_draws_and_trains_nothing(tmp_path, capsys):
    words = ["--config", str(ROOT / "configs/demo.yaml"), "--inspect", *tiny("model.radius=auto")]
    assert run(tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "6 train, 2 val, 2 test" in said and "24 x 24 px" in said
    assert "warning: there are 6 photographs to train on" in said
    files = [tmp_path / "exp/demo/inspection.png", tmp_path / "exp/demo/inspection.glb"]
    assert sorted((tmp_path / "exp/demo").iterdir()) == sorted(files)
    assert all(str(path.resolve()) in said.replace("\n", "") for path in files)
    assert not (tmp_path / "runs").exists()


def test_the_data_decides_once_and_its_coordinates_stay_with_the_checkpoint(tmp_path, monkeypatch):
    trained = demo(tmp_path, *MOVED, "model.radius=auto")
    assert Moved.read == ["train", "val", "test"]
    parsed, last = trained / "config/parsed.yaml", trained / "ckpt/last.ckpt"
    config = OmegaConf.load(parsed)
    assert isinstance(config.model.radius, float) and config.model.geometry.radius == config.model.radius
    assert torch.equal(checkpoint(last)["to_dataset"], TO_DATASET)
    before, cameras = _vertices(trained), json.loads((trained / "save/cameras.json").read_text())
    assert abs(before.mean(0) - [1e6, 2e6, 50]).max() < 100
    assert cameras["coordinates"] == "dataset"

    # Nothing but the checkpoint is read.
    monkeypatch.setattr(Moved, "views", None)
    command = ["--config", str(parsed), "--export", "--resume", str(last)]
    assert run(tmp_path, *command) == 0
    assert (_vertices(trained) == before).all()
    assert json.loads((trained / "save/cameras.json").read_text()) == cameras
    assert run(tmp_path, *command, "export.coordinates=scene") == 0
    x, y, z = _vertices(trained).T
    moved = numpy.stack((-100 * y + 1e6, 100 * x + 2e6, 100 * z + 50), axis=1)
    assert abs(moved - before).max() < 1e-3
    assert json.loads((trained / "save/cameras.json").read_text())["coordinates"] == "scene"


def test_a_checkpoint_without_coordinates_is_in_those_of_the_scene(tmp_path):
    trained = demo(tmp_path, *MOVED)
    last = trained / "ckpt/last.ckpt"
    old = checkpoint(last)
    del old["to_dataset"]
    torch.save(old, last)
    command = ["--config", str(trained / "config/parsed.yaml"), "--export", "--resume", str(last)]
    assert run(tmp_path, *command) == 0
    assert abs(_vertices(trained)).max() < 1.3


def _vertices(folder: Path) -> numpy.ndarray:
    """Of the full mesh, with all digits of the file."""
    (path,) = (path for path in folder.glob("save/*.obj") if "textured" not in path.name)
    rows = [line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")]
    return numpy.array(rows, dtype=numpy.float64)


def test_a_traced_surface_is_tested_as_it_was_trained(tmp_path):
    # Its normals are gradients, which a test must not forbid.
    words = ["model.implicit_function.dims=[48,48,48,48]", "model.implicit_function.isosurface=null"]
    words += [f"dataset.{key}={value}" for key, value in (TINY_DATA | {"size": 12, "n_test_views": 1}).items()]
    words += ["model.train_num_rays=16", "trainer.max_steps=2", "trainer.limit_val_batches=0"]
    words += ["model.batch_image_sampling=false", "model.output_rasterized_mc=true", "trainer.log_every_n_steps=1"]
    assert run(tmp_path, "--config", str(ROOT / "configs/idr-synthetic.yaml"), "--train", *words) == 0
    (folder,) = (tmp_path / "exp/idr-synthetic").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"psnr", "psnr_fg", "mask_iou", "depth_abs_fg"} <= metrics["test"].keys()
    assert imageio.imread(folder / "save/preview.png").shape == (12, 36, 3)
    parsed, last = str(folder / "config/parsed.yaml"), str(folder / "ckpt/last.ckpt")
    assert run(tmp_path, "--config", parsed, "--test", "--resume", last) == 0
    assert json.loads((folder / "metrics.json").read_text())["test"] == metrics["test"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_trains_a_step(name, tmp_path):
    file = ROOT / "configs" / name
    missing = [key for key in ("scene", "root_dir", "category") if f"{key}: ???" in file.read_text()]
    config = read(file, [f"dataset.{key}=somewhere" for key in missing])
    answers = {"model.radius": 1.25, "model.learned_background": True}
    config = decided(config, {key: answers[key] for key in automatic_keys(config)})
    resolve(config)
    OmegaConf.update(config, "dataset", TINY_DATA, merge=False)
    config.model.train_num_rays = 16
    if config.model.name in ("nerf", "neus"):
        _shrink_grids(config.model)
    config.trainer.max_steps = 2
    config.trainer.limit_val_batches = 0
    config.trainer.log_every_n_steps = 1
    add_run_keys(config, {"exp_dir": str(tmp_path), "train": True, "resume": None, "resume_weights_only": False})
    experiment = parse(Experiment, config)
    system = systems.make(experiment.system, experiment)
    before = {key: value.clone() for key, value in system.model.named_parameters()}

    from datasets import datasets
    from datasets.module import SceneData

    trainer = make_trainer(experiment, "none", tmp_path / "runs")
    trainer.fit(system, SceneData(datasets.make(experiment.dataset)))
    assert trainer.global_step == 2
    moved = [key for key, value in system.model.named_parameters() if not torch.equal(value, before[key])]
    assert {key.split(".")[0] for key in moved} >= (
        {"geometry", "texture"} if "geometry" in config.model else {"functions"}
    )
    assert all(value.isfinite().all() for value in system.model.parameters())


def _shrink_grids(model: Any) -> None:
    """Smaller tables and grids: the mathematics stays that of the file."""
    for field in ("geometry", "geometry_bg"):
        if field in model:
            model[field].xyz_encoding_config.log2_hashmap_size = 10
    kind = {} if model.name == "nerf" else {"name": "moving-average"}
    model.occupancy = {**kind, **model.get("occupancy", {}), "resolution": 16}
    if model.get("learned_background") and model.name == "neus":
        model.occupancy_bg = {"resolution": 16}
    model.samples_per_step = 1024


def test_two_processes_draw_different_rays_and_keep_equal_parameters(tmp_path):
    words = tiny("trainer.devices=2", "trainer.max_steps=20", "system.name=witness-system")
    first = _two_processes(tmp_path / "a", *words)
    runs = list((tmp_path / "a/exp/demo").iterdir())
    assert len(runs) == 1
    assert len(list(runs[0].glob("save/it20-test/*.png"))) == 2
    assert json.loads((runs[0] / "metrics.json").read_text())["test"]["n_views"] == 2
    assert_same(first[0]["state"], first[1]["state"])
    assert not torch.equal(first[0]["pixels"], first[1]["pixels"])
    last = runs[0] / "ckpt/last.ckpt"
    words[words.index("trainer.max_steps=20")] = "trainer.max_steps=40"
    resumed = _two_processes(tmp_path / "b", *words, "--resume", str(last))
    assert resumed[0]["step"] == resumed[1]["step"] == 40
    assert_same(resumed[0]["state"], resumed[1]["state"])
    # What a resumed run draws first is not what the first run drew first: it goes on, it does not begin again.
    assert not torch.equal(resumed[0]["pixels"], first[0]["pixels"])


def _two_processes(folder: Path, *words: str) -> list[dict[str, Any]]:
    command = [sys.executable, "launch.py", "--config", "configs/demo.yaml", "--train", "--gpu", "none"]
    command += ["--import", "tests/witness.py", "--exp_dir", str(folder / "exp"), "--runs_dir", str(folder / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("INSTANT_SURFACES_TRIAL", None)
    done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    run_folder = next((folder / "exp" / "demo").iterdir())
    return [torch.load(run_folder / "save" / f"witness-{rank}.pt", weights_only=True) for rank in range(2)]


def _csv(folder: Path) -> list[dict[str, str]]:
    lines = (folder / "csv_logs/metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    return [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
