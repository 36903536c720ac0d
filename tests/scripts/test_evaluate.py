"""`scripts/evaluate.py` from its words to its numbers, on surfaces whose distances are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml

from datasets import surfaces
from scripts import evaluate
from systems.camera_file import write_cameras
from tests.dtu import SCANNED, corners, write_scan
from tests.moved import TO_DATASET
from tests.spheres import Spheres

POINTS = ["--points", "3000"]


@pytest.fixture(autouse=True)
def _few_points(monkeypatch):
    monkeypatch.setattr(surfaces, "N_SURFACE_POINTS", 3000)


def sphere(path: Path, radius: float, similarity: np.ndarray | None = None) -> str:
    body = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    body.apply_transform(np.eye(4) if similarity is None else similarity)
    body.export(path)
    return str(path)


@pytest.fixture
def spheres(tmp_path: Path) -> tuple[str, str]:
    """Concentric spheres of radii 1.02 and 1."""
    return sphere(tmp_path / "ours.ply", 1.02), sphere(tmp_path / "true.ply", 1.0)


def make_run(folder: Path, coordinates: str = "dataset") -> Path:
    """A run whose mesh is 0.02 too large, in the units of the scene; files are 100 times as large."""
    (folder / "save").mkdir(parents=True)
    (folder / "config").mkdir()
    config = {"name": "a", "dataset": {"name": "sphere-data"}, "model": {"radius": "auto"}}
    (folder / "config/parsed.yaml").write_text(yaml.safe_dump(config))
    (folder / "save/it9-mc8.obj").write_text("of an earlier step")
    (folder / "save/it40-mc8-textured.obj").write_text("not this one")
    sphere(folder / "save/it40-mc8.obj", 1.02, TO_DATASET.numpy() if coordinates == "dataset" else None)
    views = Spheres(Spheres.Config()).views("test")
    write_cameras(folder / "save/cameras.json", "test", views, coordinates, TO_DATASET)  # type: ignore[arg-type]
    return folder


def section(folder: Path, name: str = "geometry") -> dict:
    return json.loads((folder / "metrics.json").read_text())[name]


def test_concentric_spheres_have_the_chamfer_distance_of_their_radii(tmp_path: Path, spheres, capsys):
    words = ["--units", "cm", "--thresholds", "0.025", "0.5%", "--output", str(tmp_path / "out"), *POINTS]
    assert evaluate.main([spheres[0], "--truth", spheres[1], *words]) == 0
    said, found = capsys.readouterr().out, section(tmp_path / "out")
    assert found["chamfer"] == pytest.approx(0.02, rel=0.01)
    assert found["normal_consistency"] > 0.999
    assert found["f_score@0.025"] == 1.0 and found["f_score@0.5%"] == 0.0
    assert found["units"] == "cm" and found["thresholds"]["0.5%"] == pytest.approx(0.01, rel=0.01)
    assert found["n_points"] == 3000 and found["truth"] == str(Path(spheres[1]).resolve())
    for words in ("chamfer", "f-score, within 0.025 cm", "peak memory", str((tmp_path / "out/metrics.json").resolve())):
        assert words in said


def test_a_crop_volume_leaves_out_the_rest(tmp_path: Path, spheres):
    ring = [[-2, -2, 0], [2, -2, 0], [2, 2, 0], [-2, 2, 0]]
    crop = {"orthogonal_axis": "Z", "axis_min": 0.0, "axis_max": 5.0, "bounding_polygon": ring}
    (tmp_path / "crop.json").write_text(json.dumps(crop))
    words = ["--crop", str(tmp_path / "crop.json"), "--output", str(tmp_path), *POINTS]
    assert evaluate.main([spheres[0], "--truth", spheres[1], *words]) == 0
    found = section(tmp_path)
    assert found["n_points"] == pytest.approx(1500, abs=150) and found["n_truth_points"] == pytest.approx(1500, abs=150)
    assert found["chamfer"] == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("coordinates", ["dataset", "scene"])
def test_a_run_is_measured_in_the_coordinates_of_its_data_set(tmp_path: Path, coordinates: str, capsys):
    run = make_run(tmp_path / "run", coordinates)
    assert evaluate.main([str(run), *POINTS]) == 0
    found = section(run)
    assert found["mesh"].endswith("it40-mc8.obj") and found["truth"] == "the data set's surface"
    assert found["chamfer"] == pytest.approx(2.0, rel=0.02)  # its triangles are up to 0.04 inside of its sphere
    assert found["diameter"] == pytest.approx(200) and found["truth_spacing"] == 0
    assert str((run / "metrics.json").resolve()) in capsys.readouterr().out


def test_a_mesh_may_be_measured_with_the_data_set_of_a_configuration(tmp_path: Path):
    run = make_run(tmp_path / "run")
    words = [
        "--config",
        str(run / "config/parsed.yaml"),
        "dataset.size=12",
        "--depth",
        "test",
        "--output",
        str(tmp_path),
    ]
    assert evaluate.main([str(run / "save/it40-mc8.obj"), *words, *POINTS]) == 0
    found = section(tmp_path)
    assert found["completeness"] == pytest.approx(2.0, rel=0.05)
    # Depth maps are points, which the mesh is farther from than from the surface.
    assert 2 < found["accuracy"] < 2 + found["truth_spacing"]


def test_only_what_cameras_see_counts_when_asked(tmp_path: Path):
    run = make_run(tmp_path / "run")
    inner = trimesh.creation.icosphere(subdivisions=3, radius=0.5).apply_transform(TO_DATASET.numpy())
    both = trimesh.util.concatenate([trimesh.load(run / "save/it40-mc8.obj", process=False), inner])
    both.export(run / "save/it40-mc8.obj")
    assert evaluate.main([str(run), *POINTS]) == 0
    assert evaluate.main([str(run), "--visible", "test", *POINTS]) == 0
    # The inner sphere has 0.25 / (1.04 + 0.25) of the area, half a radius off.
    hidden, seen = section(run), section(run, "geometry_visible")
    assert hidden["accuracy"] == pytest.approx((1.0404 * 2 + 0.25 * 50) / 1.2904, rel=0.1)
    assert seen["accuracy"] == pytest.approx(2.0, rel=0.03) and seen["visible"] == "test"
    # Eight views see every point of the sphere but few.
    assert 0.9 * hidden["n_truth_points"] < seen["n_truth_points"] <= hidden["n_truth_points"]


def test_the_protocol_of_dtu_has_a_section_of_its_own(tmp_path: Path, capsys):
    corners(SCANNED + [0, 0, 0.5]).export(tmp_path / "mesh.ply")
    words = ["--dtu", str(write_scan(tmp_path / "dtu")), "--scan", "7", "--output", str(tmp_path)]
    assert evaluate.main([str(tmp_path / "mesh.ply"), *words]) == 0
    found = section(tmp_path, "dtu")
    assert found["accuracy"] == found["completeness"] == found["chamfer"] == pytest.approx(0.5)
    said = capsys.readouterr().out
    assert "DTU protocol, scan 7" in said and "mm" in said and "peak memory" in said


def write_bad_files(folder: Path) -> None:
    (folder / "empty.ply").write_text("ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n")
    trimesh.PointCloud(np.eye(3)).export(folder / "cloud.ply")
    trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False).export(folder / "flat.ply")
    trimesh.Trimesh(np.full((3, 3), np.nan), [[0, 1, 2]], process=False).export(folder / "nan.ply")
    trimesh.creation.box().export(folder / "box.ply")
    (folder / "run").mkdir()


@pytest.mark.parametrize(
    "words, said",
    [
        (["none.ply", "--truth", "box.ply"], "none.ply does not exist; expected a mesh file or the folder of a run"),
        (["empty.ply", "--truth", "box.ply"], "empty.ply"),
        (["cloud.ply", "--truth", "box.ply"], "cloud.ply holds 3 points but no triangles; expected a mesh"),
        (["flat.ply", "--truth", "box.ply"], "the 1 triangles of the mesh have no area"),
        (["box.ply", "--truth", "flat.ply"], "flat.ply: the 1 triangles of the mesh have no area"),
        (["nan.ply", "--truth", "box.ply"], "nan.ply: 3 of 3 points are NaN or infinite"),
        (["run"], "run holds no mesh save/it*.obj; make one with launch.py --export --resume CKPT"),
        (["box.ply"], "evaluating without --truth FILE needs a data set; add --config YAML"),
        (["box.ply", "--truth", "none.ply"], "none.ply does not exist; expected a mesh or point cloud"),
        (["box.ply", "--truth", "box.ply", "--thresholds", "0.1", "-2"], "threshold -2: expected a positive length"),
        (["box.ply", "--truth", "box.ply", "--thresholds", "0%"], "threshold 0%: expected a positive length"),
        (["box.ply", "--truth", "box.ply", "--units", "furlong"], "invalid choice: 'furlong'"),
        (["box.ply", "--truth", "box.ply", "--points", "0"], "--points 0: expected a positive number"),
        (["box.ply", "--truth", "cloud.ply", "--voxel", "-1"], "--voxel -1.0: expected a positive number"),
        (["box.ply", "--voxel", "1"], "--voxel has no effect without --truth FILE"),
        (["box.ply", "--truth", "box.ply", "--visible", "test"], "--visible test needs a data set"),
        (["box.ply", "--depth", "test"], "--depth test needs a data set"),
        (["box.ply", "--truth", "box.ply", "--depth", "test"], "not allowed with argument"),
        (["box.ply", "--dtu", "dtu"], "--dtu needs the number of the scan: add --scan 24"),
        (["box.ply", "--dtu", "dtu", "--scan", "7", "--units", "mm"], "--units has no effect with --dtu"),
        (["box.ply", "--truth", "box.ply", "--scan", "7"], "--scan has no effect without --dtu DIR"),
        (["box.ply", "--truth", "box.ply", "--cull", "7"], "--cull has no effect without --dtu DIR"),
        (["box.ply", "--dtu", "dtu", "--scan", "7", "--cull", "-1"], "--cull -1: expected 0 pixels or more"),
        (["box.ply", "--dtu", "dtu", "--scan", "7"], "stl007_total.ply does not exist; unpack Points.zip"),
        (["box.ply", "--depth", "test", "a=1"], "a=1 has no effect without --config YAML"),
        (["box.ply", "--truth", "box.ply", "a=1"], "a=1 has no effect: no data set is needed"),
        (["box.ply", "--truth", "box.ply", "--config", "a.yaml"], "--config has no effect: no data set is needed"),
        (["box.ply", "--depth", "test", "--config", "none.yaml"], "none.yaml: no such configuration file"),
        (["box.ply", "--thruth", "box.ply"], "unknown option --thruth (did you mean '--truth'?)"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys, monkeypatch, words: list[str], said: str):
    write_bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
