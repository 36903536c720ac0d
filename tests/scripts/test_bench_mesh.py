"""Laws of the benchmark of meshing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from models.fields.isosurface import IsosurfaceConfig
from scripts import bench_mesh

BALL: Any = SimpleNamespace(
    level=lambda points: points.norm(dim=-1) - 0.5,
    radius=1.0,
    is_distance=True,
    may_hold_surface=lambda points, reach: torch.ones(len(points), dtype=torch.bool),
    isosurface=IsosurfaceConfig(),
)


def test_the_three_ways_mesh_the_same_surface() -> None:
    found = {name: job() for name, job in bench_mesh.ways(BALL, 64).items()}
    for extraction in found.values():
        torch.testing.assert_close(extraction.upper, torch.full((3,), 0.5), atol=2e-3, rtol=0)
        torch.testing.assert_close(extraction.lower, torch.full((3,), -0.5), atol=2e-3, rtol=0)
    n_faces = [extraction.n_faces for extraction in found.values()]
    assert max(n_faces) < 1.05 * min(n_faces)
    assert found[bench_mesh.PLAIN].n_asked == 64**3 <= found[bench_mesh.ALL].n_asked


def test_the_fine_pass_of_the_export_asks_for_less_than_the_whole_grid() -> None:
    found = {name: job() for name, job in bench_mesh.ways(BALL, 256).items() if name != bench_mesh.PLAIN}
    coarse = bench_mesh.ways(BALL, 128)[bench_mesh.ALL]().n_asked
    assert found[bench_mesh.OURS].n_asked - coarse < 0.3 * found[bench_mesh.ALL].n_asked


def test_a_table_row_tells_time_ratio_questions_and_faces() -> None:
    table = bench_mesh.rows(BALL, [16], rounds=1)
    assert [row[0] for row in table] == [f"16³, {name}" for name in ("ours", "all bricks", "plain")]
    assert table[0][2] == "1.0" and int(table[0][5].replace(",", "")) > 100


def test_a_folder_that_is_no_run_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_mesh.main([str(tmp_path)]) == 2
    assert "config/parsed.yaml: no such file; give the folder of a run" in capsys.readouterr().err
