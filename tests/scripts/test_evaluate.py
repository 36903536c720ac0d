"""`scripts/evaluate.py` from its words to its numbers, on surfaces whose distances are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml

from scripts import evaluate
from systems.camera_file import write_cameras
from tests.dtu import SCANNED, corners, write_scan
from tests.moved import TO_DATASET, rendered

DATA = {"n_train_views": 2, "n_test_views": 3, "size": 32, "samples_per_pixel": 1}
POINTS = ["--points", "3000"]


@pytest.fixture
def spheres(tmp_path: Path) -> tuple[str, str]:
    """Concentric spheres of radii 1.02 and 1."""
    paths = []
    for name, radius in (("ours", 1.02), ("true", 1.0)):
        paths.append(str(tmp_path / f"{name}.ply"))
        trimesh.creation.icosphere(subdivisions=4, radius=radius).export(paths[-1])
    return paths[0], paths[1]


def knot_mesh(path: Path, similarity: np.ndarray | None = None) -> None:
    """A coarse mesh of the surface of the synthetic data set: its points, with a triangle of its neighbours each."""
    from scipy.spatial import KDTree

    surface = rendered("test", **DATA).surface
    points = surface.points[::40].double().numpy()
    faces = KDTree(points).query(points, k=3)[1]
    body = trimesh.Trimesh(points, faces, process=False)
    if similarity is not None:
        body.apply_transform(similarity)
    body.export(path)


def make_run(folder: Path, coordinates: str = "dataset") -> Path:
    """A run of the synthetic data set as if its files were turned, enlarged and far away."""
    (folder / "save").mkdir(parents=True)
    (folder / "config").mkdir()
    config = {"name": "a", "dataset": {"name": "moved-data", **DATA}, "model": {"radius": "auto"}}
    (folder / "config/parsed.yaml").write_text(yaml.safe_dump(config))
    similarity = TO_DATASET.numpy() if coordinates == "dataset" else None
    (folder / "save/it9-mc8.obj").write_text("of an earlier step")
    knot_mesh(folder / "save/it40-mc8.obj", similarity)
    (folder / "save/it40-mc8-textured.obj").write_text("not this one")
    write_cameras(folder / "save/cameras.json", "test", rendered("test", **DATA), coordinates, TO_DATASET)  # type: ignore[arg-type]
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
    assert found["n_points"] == pytest.approx(1500, abs=150) and found["n_truth_points"] == pytest.approx(1e5, rel=0.02)
    assert found["chamfer"] == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("coordinates", ["dataset", "scene"])
def test_a_run_is_measured_in_the_coordinates_of_its_data_set(tmp_path: Path, coordinates: str, capsys):
    run = make_run(tmp_path / "run", coordinates)
    assert evaluate.main([str(run), *POINTS]) == 0
    found = section(run)
    assert found["mesh"].endswith("it40-mc8.obj") and found["truth"] == "the data set's surface"
    # The mesh holds points of the surface, and the similarity enlarges by 100.
    assert found["diameter"] == pytest.approx(100 * rendered("test", **DATA).surface.diameter)
    assert 0.01 < found["accuracy"] < 1 and found["accuracy_percent"] < 0.5
    assert str(run.resolve()) in capsys.readouterr().out


def test_what_cameras_see_and_depth_maps_have_sections_of_their_own(tmp_path: Path):
    run = make_run(tmp_path / "run")
    assert evaluate.main([str(run), "--depth", "test", "--visible", "test", *POINTS]) == 0
    found = section(run, "geometry_visible")
    assert found["truth"] == "depth maps, test" and found["visible"] == "test"
    assert found["truth_spacing"] > 0 and 0 < found["n_truth_points"] <= found["n_points"] <= 3 * 32**2
    assert found["completeness_percent"] < 1


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
        (["box.ply", "--truth", "box.ply", "a=1"], "a=1 has no effect without --config YAML"),
        (["box.ply", "--truth", "box.ply", "--config", "none.yaml"], "none.yaml: no such configuration file"),
        (["box.ply", "--thruth", "box.ply"], "unknown option --thruth (did you mean '--truth'?)"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys, monkeypatch, words: list[str], said: str):
    write_bad_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
