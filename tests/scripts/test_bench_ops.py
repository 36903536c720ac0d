"""Laws of the benchmark of operations: baselines compute the same, turns are fair, limits do the work they count."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import ops
from models.ops import GridLayout
from scripts import bench_ops
from scripts.bench import compiled, plain, report
from scripts.bench.candidates import COMPILED, LIMIT, OURS, PLAIN, Candidate, Operation
from scripts.bench.inputs import BALL, BAND, make_scene
from scripts.bench.operations import Grid, distance_operation, operations
from scripts.bench.roofline import Accesses, Work, make_machine
from scripts.bench.timing import take_turns

CPU = torch.device("cpu")
LAYOUT = GridLayout(5, 2, 8, 4, 1.6)  # dense levels and hashed ones


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads on sizes like these only wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def small_grid(n: int = 200) -> Grid:
    torch.manual_seed(0)
    return Grid.make(LAYOUT, make_scene(n, CPU).x)


def assert_close(given: object, expected: object) -> None:
    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_active", [2, None])
def test_the_plain_encoding_is_the_encoding(n_active: int | None) -> None:
    grid = small_grid()
    expected = ops.encode(grid.x, grid.table, LAYOUT, n_active, "reference")
    assert_close(plain.encode(grid.rows, grid.table, LAYOUT, n_active).t(), expected)


def test_double_backward_and_closed_form_give_the_same_gradients() -> None:
    operation = distance_operation(small_grid())
    found = {}
    for name in (OURS, PLAIN):
        candidate = operation.candidates[name]
        outputs, gradient = candidate.forward()
        loss = outputs.square().sum() + (gradient.norm(dim=0 if name == OURS else 1) - 1).square().sum()
        found[name] = torch.autograd.grad(loss, candidate.leaves)
    for ours, other in zip(found[OURS], found[PLAIN], strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_plain_compositing_and_opacity_are_the_operations() -> None:
    scene = make_scene(300, CPU)
    sharpness = torch.tensor(50.0)
    alpha = ops.neus_alpha(scene.sdf, scene.slope, scene.width, sharpness, backend="reference")
    assert_close(plain.neus_alpha(scene.sdf, scene.slope, scene.width, sharpness), alpha)
    values = torch.rand(3, 300)
    weights, sums = ops.composite(alpha, values, scene.offsets, backend="reference")
    found = plain.composite(alpha, values.t(), scene.ray, scene.offsets)
    assert_close(found, (weights, sums.t()))


def test_samples_lie_ray_after_ray_in_the_shell() -> None:
    torch.manual_seed(0)
    scene = make_scene(1000, CPU)
    assert scene.x.shape == (3, 1000)
    assert scene.offsets[-1] == 1000 and len(scene.offsets) == scene.n_rays + 1
    assert (scene.ray.bincount() == scene.offsets.diff()).all()
    assert ((2 * scene.x - 1).norm(dim=0) - BALL).abs().max() < BAND + 0.05
    is_same_ray = scene.ray.diff() == 0
    assert (scene.t_start.diff()[is_same_ray] > 0).all()


def test_every_operation_has_ours_and_something_to_compare_it_with() -> None:
    found = {operation.name: operation for operation in operations(LAYOUT, 64, CPU)}
    assert len(found) == 12
    for operation in found.values():
        assert next(iter(operation.candidates)) == OURS
        assert len(operation.candidates) > 1
        for candidate in operation.candidates.values():
            candidate.job()()


def test_candidates_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    times = take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, 3, CPU)
    assert calls == ["a", "b"] * 4
    assert len(times["a"].rounds) == 3


def test_the_clock_of_a_forward_pass_is_not_that_of_the_backward_pass() -> None:
    leaf = torch.ones(3, requires_grad=True)
    calls: list[int] = []

    def forward() -> torch.Tensor:
        calls.append(1)
        return 2 * leaf

    job = Candidate(forward, [leaf], is_backward_only=True).job()
    (gradient,) = job()  # type: ignore[misc]
    assert calls == [1]
    assert gradient.shape == (3,)


def test_the_limit_visits_every_place_it_is_given() -> None:
    machine = make_machine(CPU)
    if machine is None:
        pytest.skip("there is no C++ compiler")
    tables = [Accesses(50, torch.arange(50, dtype=torch.int32)), Accesses(7, torch.zeros(11, dtype=torch.int32))]
    machine.job(Work(tuple(tables), tuple(tables), 10**4, 12 * 10**3))()
    entries = [array.view(-1, 2) for (size, _), array in machine._arrays.items() if size in (100, 14)]  # type: ignore[attr-defined]
    visits = [int(array.sum() - array.numel()) // 2 for array in entries]
    assert sorted(visits)[-2:] == [11, 50]


def test_a_compilation_that_fails_or_lasts_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    operation = Operation("sleep", 1, {OURS: Candidate(int), PLAIN: Candidate(int)})
    monkeypatch.setattr(compiled, "PATIENCE", 1)
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda: time.sleep(5))
    found, note = compiled.with_compiled(operation)
    assert found == operation and "not done after 1 s" in note

    def fail() -> None:
        raise RuntimeError("no such thing\nas this")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fail)
    assert compiled.with_compiled(operation) == (operation, "torch.compile of sleep: no such thing")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert COMPILED in compiled.with_compiled(operation)[0].candidates


def test_tables_replace_those_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- /one -->\nb\n")
    for text in ("new", "newer"):
        report.replace_section(page, "one", text)
    assert page.read_text() == "a\n<!-- one -->\n\nnewer\n\n<!-- /one -->\nb\n"
    with pytest.raises(ValueError, match="needs one line <!-- two -->"):
        report.replace_section(page, "two", "new")


def test_the_command_writes_numbers_tables_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench_ops -->\n<!-- /bench_ops -->\n")
    files = ["--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png"), "--into", str(page)]
    assert bench_ops.main(["--quick", "--only", "colour", "march", *files]) == 0
    results = json.loads((tmp_path / "a.json").read_text())
    first, second = results["operations"]
    assert first["name"].startswith("colour") and second["name"].startswith("march")
    assert min(first["ms"].values()) > 0
    if results["limits"]:
        assert LIMIT in first["ms"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() in page.read_text()


def test_growth_is_measured_with_the_threads_it_names() -> None:
    before = torch.get_num_threads()
    size = bench_ops.Size(128, n_levels=3, log2_table=8, n_threads=1)
    row = bench_ops._at(size, "threads", 1, CPU)
    assert row["at"] == "1"
    assert set(bench_ops.COLUMNS) < set(row["ns"])
    assert torch.get_num_threads() == before
