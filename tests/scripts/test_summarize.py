import csv
import json
from pathlib import Path

import pytest

from scripts import summarize

A = {
    "step": 100,
    "test": {"psnr": 31.23456, "ssim": 0.9, "lpips": None, "n_views": 2, "views": [{"view": "a", "psnr": 1.0}]},
    "mesh": {"faces": 12345, "is_watertight": True, "size": [1.0, 2.0]},
    "geometry": {"truth": "points.ply", "chamfer": 0.0123456, "f_score@0.5%": 0.75, "thresholds": {"0.5%": 0.01}},
    "training": {"minutes": 2.5, "samples_per_second": 1e6},
}
B = {"test": {"psnr": 29.0, "ssim": 0.8, "lpips": 0.125}, "mesh": None, "dtu": {"chamfer": 0.8}}


def make_runs(root: Path) -> Path:
    for name, content in (("x/@1", A), ("x/@2", None), ("y/@1", B), ("y/@2", "{")):
        folder = root / name
        (folder / "config").mkdir(parents=True)
        (folder / "config" / "parsed.yaml").write_text("name: x\n")
        if content is not None:
            (folder / "metrics.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def table(said: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("|")]
    return [rows[0], *rows[2:]]


def test_every_run_with_results_has_a_row_and_the_others_are_listed(tmp_path: Path, capsys):
    assert summarize.main([str(make_runs(tmp_path))]) == 0
    said = capsys.readouterr().out
    assert table(said) == [
        [
            *("run", "test.psnr", "test.ssim", "test.lpips", "geometry.chamfer", "geometry.f_score@0.5%"),
            *("training.minutes", "dtu.chamfer"),
        ],
        ["x/@1", "31.23", "0.9", "not computed", "0.01235", "0.75", "2.5", ""],
        ["y/@1", "29", "0.8", "0.125", "", "", "", "0.8"],
    ]
    assert "* x/@2: unfinished, no metrics.json" in said
    assert "* y/@2: metrics.json is broken" in said


def test_columns_may_be_any_numbers_and_files_are_written(tmp_path: Path, capsys):
    make_runs(tmp_path)
    words = ["--columns", "mesh.*", "step", "test.lpips", "--csv", str(tmp_path / "out/t.csv")]
    assert (
        summarize.main([str(tmp_path / "x"), str(tmp_path / "y/@1"), *words, "--markdown", str(tmp_path / "t.md")]) == 0
    )
    said = capsys.readouterr().out
    # Texts, lists and truths are no numbers.
    assert table(said)[:2] == [["run", "mesh.faces", "step", "test.lpips"], ["x/@1", "12,345", "100", "not computed"]]
    assert str((tmp_path / "out/t.csv").resolve()) in said
    assert (tmp_path / "t.md").read_text() in said
    with (tmp_path / "out/t.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["run", "mesh.faces", "step", "test.lpips"],
        ["x/@1", "12345", "100", "not computed"],
        ["y/@1", "", "", "0.125"],
    ]


def test_unfinished_runs_alone_are_no_error(tmp_path: Path, capsys):
    make_runs(tmp_path)
    assert summarize.main([str(tmp_path / "x/@2")]) == 0
    assert capsys.readouterr().out == "* @2: unfinished, no metrics.json\n"


@pytest.mark.parametrize(
    "words, said",
    [
        (["nowhere"], "nowhere is no folder; expected a run"),
        (["empty"], "empty holds no run: neither config/parsed.yaml nor metrics.json"),
        (["x", "--columns", "test.pnsr"], "--columns test.pnsr: no run has such a number; there are step, test.psnr"),
        (["x", "--bold"], "unrecognized arguments: --bold; --help lists the options"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, capsys, monkeypatch, words: list[str], said: str):
    monkeypatch.chdir(make_runs(tmp_path))
    (tmp_path / "empty").mkdir()
    assert summarize.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
