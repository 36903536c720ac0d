"""Laws of the benchmark of training steps."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models import models, ops
from models.ops import GridLayout, reference
from scripts import bench_train
from scripts.bench import phases
from scripts.bench.candidates import OURS, PLAIN, REFERENCE
from scripts.bench.variants import computed_as, set_backend
from utils.config import load, parse

TINY = [
    "dataset.size=16",
    "dataset.n_train_views=3",
    "dataset.n_test_views=1",
    "dataset.samples_per_pixel=1",
    "model.samples_per_step=512",
    "model.train_num_rays=64",
    "model.max_train_num_rays=64",
    "model.num_samples_per_ray=48",
    "model.num_probes=16",
    "model.occupancy.resolution=16",
    "model.geometry.xyz_encoding_config.n_levels=5",
    "model.geometry.xyz_encoding_config.log2_hashmap_size=10",
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Several threads on sizes like these only wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def test_all_variants_see_the_same_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.json"
    assert bench_train.main(["--quick", "--json", str(path), *TINY]) == 0
    results = json.loads(path.read_text())
    counts = [facts["samples_per_step"] for facts in results["variants"].values()]
    # They differ in the last digits of the field, and that may move a cell of the occupancy.
    assert max(counts) - min(counts) < 0.02 * max(counts)
    assert len({facts["rays_per_step"] for facts in results["variants"].values()}) == 1
    assert list(results["variants"]) == [OURS, REFERENCE, PLAIN]
    assert "| ours |" in capsys.readouterr().out


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes when it is told to."""
    clock = Clock()
    monkeypatch.setattr(phases, "time", clock)
    return clock


def test_phases_add_up_to_the_time_that_passes(clock: Clock) -> None:
    found = phases.Phases(0)
    march = found.timed(lambda: clock.pass_by(0.25), "march")

    def render() -> None:
        clock.pass_by(0.5)
        march()
        clock.pass_by(0.5)

    found.timed(render, "rest of the model")()
    clock.pass_by(2.0)
    found.on_train_batch_end()
    assert found.milliseconds() == {"march": 250, "rest of the model": 1000, phases.REST: 2000}


def test_a_phase_may_belong_to_one_caller_only(clock: Clock) -> None:
    found = phases.Phases(0)
    query = found.timed(lambda: clock.pass_by(1.0), "query without gradients", phases.MODEL)
    for caller in ("occupancy", phases.MODEL):
        found.timed(query, caller)()
    found.on_train_batch_end()
    times = found.milliseconds()
    assert times["occupancy"] == times["query without gradients"] == 1000


def test_steps_that_warm_up_are_not_counted(clock: Clock) -> None:
    found = phases.Phases(1)
    found.timed(lambda: clock.pass_by(1.0), "march")()
    found.on_train_batch_end()
    clock.pass_by(3.0)
    found.on_train_batch_end()
    assert found.milliseconds() == {phases.REST: 3000}


def test_a_backend_is_named_in_every_part() -> None:
    config = load(Path("configs/demo.yaml"))
    schema = models.get("neus").Config
    options = parse(schema, {key: value for key, value in config.model.items() if key != "name"})
    set_backend(options, "reference")
    named = options.geometry.xyz_encoding_config.backend, options.texture.mlp_network_config.backend  # type: ignore[attr-defined]
    assert {options.backend, *named} == {"reference"}


def test_plain_torch_takes_the_place_of_the_operations_for_a_while() -> None:
    torch.manual_seed(0)
    layout = GridLayout(4, 2, 8, 4, 1.5)
    table = torch.rand(layout.n_entries, 2, requires_grad=True)
    weights, biases = [torch.randn(8, 11), torch.randn(3, 8)], [torch.zeros(8), None]
    arguments = torch.rand(3, 50), table, layout, weights, biases, "softplus", 3
    expected, before = reference.sdf_field(*arguments, True), ops.sdf_field
    with computed_as(PLAIN):
        assert ops.sdf_field is not before
        found = ops.sdf_field(*arguments)
        torch.testing.assert_close(ops.field(*arguments), expected[0])
    assert ops.sdf_field is before
    # Gradients are sums over levels of single precision, of magnitude 1.
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
