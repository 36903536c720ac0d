"""Times whole training steps, from drawing rays to the optimiser, Lightning and logging included.

    python scripts/bench_train.py                                      the demo's data and settings
    python scripts/bench_train.py --config configs/neus-blender-fast.yaml dataset.scene=lego --start 2000
    python scripts/bench_train.py --json train.json --into docs/performance.md

The configured training runs to a first step (--start), where surface and occupancy look like a training's. From
that state it goes on in three ways that take turns: as configured; by the closed forms in torch (reference); and as
one would write it with torch alone, distances differentiated twice by autograd (plain torch). All three draw the same
rays, so they see the same samples; counted are those that get gradients. `key=value` overrides the configuration as
with launch.py.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Threads that spin while they wait starve the others; must be there before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# The repository is no installed package.
import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402

from datasets import datasets  # noqa: E402
from datasets.module import SceneData  # noqa: E402
from launch import set_environment, set_verbosity  # noqa: E402
from scripts.bench import report  # noqa: E402
from scripts.bench.candidates import OURS  # noqa: E402
from scripts.bench.phases import Phases, watched  # noqa: E402
from scripts.bench.variants import VARIANTS, computed_as, set_backend  # noqa: E402
from systems import systems  # noqa: E402
from systems.experiment import Experiment  # noqa: E402
from systems.trainer import make_trainer  # noqa: E402
from utils.config import load, parse  # noqa: E402
from utils.run_directory import add_run_keys  # noqa: E402

N_SKIPPED = 2  # steps of every run that only warm up


@dataclass(frozen=True)
class Run:
    """What was measured of some training steps."""

    n_steps: int
    n_rays: int
    n_samples: int
    seconds: float

    @property
    def step_ms(self) -> float:
        return 1e3 * self.seconds / self.n_steps

    @property
    def samples_per_second(self) -> float:
        return self.n_samples / self.seconds


class Stopwatch(pl.Callback):
    """From the end of the last step that only warms up to the end of the last one."""

    def __init__(self, n_skipped: int):
        self._n_left = n_skipped
        self._n_rays = 0
        self._ends: list[tuple[float, int, int]] = []

    def on_train_start(self, trainer: pl.Trainer, system: Any) -> None:
        self._note(system)

    def on_train_batch_start(self, trainer: pl.Trainer, system: Any, *_: Any) -> None:
        self._n_rays += system.budget.n_rays

    def on_train_batch_end(self, trainer: pl.Trainer, system: Any, *_: Any) -> None:
        self._n_left -= 1
        if self._n_left == 0 or trainer.global_step == trainer.max_steps:
            self._note(system)
            self._n_steps = -self._n_left

    def run(self) -> Run:
        before, after = self._ends[-2:]
        seconds, n_rays, n_samples = (now - then for then, now in zip(before, after, strict=True))
        return Run(self._n_steps, int(n_rays), int(n_samples), seconds)

    def _note(self, system: Any) -> None:
        if system.device.type == "cuda":
            torch.cuda.synchronize(system.device)
        self._ends.append((time.perf_counter(), self._n_rays, system.n_samples_seen))


class Bench:
    """Trainings of one configuration in a folder that goes away."""

    def __init__(self, arguments: argparse.Namespace, folder: Path):
        self.arguments, self.folder = arguments, folder
        self.data = SceneData(datasets.make(self._experiment(OURS, 1).dataset))
        self.start = folder / "start.ckpt"

    def reach_start(self) -> Run:
        """Trains as configured to the step from which everything is measured."""
        stopwatch = Stopwatch(0)
        trainer = self._fit(OURS, self.arguments.start, [stopwatch])
        trainer.save_checkpoint(self.start)
        return stopwatch.run()

    def measure(self, variant: str) -> Run:
        stopwatch = Stopwatch(N_SKIPPED)
        self._fit(variant, self._last_step, [stopwatch], self.start)
        return stopwatch.run()

    def phases(self, variant: str) -> dict[str, float]:
        """Milliseconds per step by phase."""
        phases = Phases(N_SKIPPED)
        self._fit(variant, self._last_step, [phases], self.start)
        return phases.milliseconds()

    @property
    def _last_step(self) -> int:
        return self.arguments.start + N_SKIPPED + self.arguments.steps

    def _fit(
        self, variant: str, last_step: int, callbacks: Sequence[pl.Callback], checkpoint: Path | None = None
    ) -> pl.Trainer:
        experiment = self._experiment(variant, last_step)
        with redirect_stdout(sys.stderr), computed_as(variant), ExitStack() as stack:
            trainer = make_trainer(experiment, self.arguments.gpu, self.folder / "runs")
            system = systems.make(experiment.system, experiment)
            for callback in callbacks:
                trainer.callbacks.append(callback)  # type: ignore[attr-defined]
                if isinstance(callback, Phases):
                    stack.enter_context(watched(system, callback))
            trainer.fit(system, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)
        return trainer

    def _experiment(self, variant: str, last_step: int) -> Experiment:
        config = load(self.arguments.config, self.arguments.overrides)
        command = {"exp_dir": str(self.folder), "train": True, "resume": None, "resume_weights_only": False}
        add_run_keys(config, command, self.arguments.overrides)
        experiment = parse(Experiment, config)
        if variant != OURS:
            set_backend(experiment.model, "reference")
        # Schedules were resolved with the configured number of steps, so they are those of a real training.
        experiment.trainer |= {"max_steps": last_step, "limit_val_batches": 0, "num_sanity_val_steps": 0}
        experiment.trainer["enable_checkpointing"] = False
        return experiment


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, default=ROOT / "configs" / "demo.yaml", metavar="YAML", help="default: the demo"
    )
    parser.add_argument("--start", type=int, default=1024, metavar="N", help="step to measure from (default 1024)")
    parser.add_argument("--steps", type=int, default=64, metavar="N", help="steps of a turn (default 64)")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="turns of each variant (default 2)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="what to compare (all)")
    parser.add_argument("--gpu", default="none", metavar="IDS", help="as of launch.py; default none, the CPU")
    parser.add_argument("--quick", action="store_true", help="a few steps from the beginning, for a glance")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--into", type=Path, metavar="FILE", help="replace the tables in a Markdown file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the configuration")
    return parser


def main(words: list[str]) -> int:
    arguments = make_parser().parse_intermixed_args(words)
    if arguments.quick:
        arguments.start, arguments.steps, arguments.rounds = 16, 8, 1
    set_environment(arguments.gpu)
    set_verbosity(False, True)
    device = torch.device("cpu" if arguments.gpu == "none" else "cuda")
    results: dict[str, Any] = {"machine": report.describe(device), "config": arguments.config.stem}
    results |= {"overrides": arguments.overrides, "start": arguments.start, "steps": arguments.steps}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        results["from_step_0"] = _facts([bench.reach_start()])
        runs: dict[str, list[Run]] = {variant: [] for variant in arguments.variants}
        for _ in range(arguments.rounds):
            for variant in runs:
                runs[variant].append(bench.measure(variant))
        results["variants"] = {variant: _facts(found) for variant, found in runs.items()}
        results["phases_ms"] = {variant: bench.phases(variant) for variant in runs}
    text = markdown(results)
    print(text)
    if arguments.json:
        report.write_json(arguments.json, results)
    if arguments.into:
        report.replace_section(arguments.into, "bench_train", text)
    return 0


def _facts(runs: list[Run]) -> dict[str, Any]:
    """Medians over the rounds, and every round."""
    return {
        "step_ms": statistics.median(run.step_ms for run in runs),
        "samples_per_step": statistics.median(run.n_samples / run.n_steps for run in runs),
        "rays_per_step": statistics.median(run.n_rays / run.n_steps for run in runs),
        "samples_per_second": statistics.median(run.samples_per_second for run in runs),
        "rounds": [vars(run) for run in runs],
    }


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    overrides = "".join(f" {override}" for override in results["overrides"])
    rate = results["from_step_0"]["samples_per_second"] / 1e6
    sentence = report.sentence(results["machine"])
    intro = (
        f"{sentence}\n\n`{results['config']}{overrides}`: {rate:.2f} M samples/s from step 0 "
        f"to step {results['start']}; from there, turns of {results['steps']} steps:"
    )
    return "\n\n".join([intro, _variant_table(results["variants"]), _phase_table(results["phases_ms"])])


def _variant_table(variants: dict[str, dict[str, Any]]) -> str:
    fastest = min(facts["step_ms"] for facts in variants.values())
    rows = []
    for name, facts in variants.items():
        rate = report.number(facts["samples_per_second"] / 1e6)
        times = f"{facts['step_ms'] / fastest:.1f}"
        counts = [f"{facts[what]:,.0f}" for what in ("rays_per_step", "samples_per_step")]
        rows.append([name, report.number(facts["step_ms"]), *counts, rate, times])
    return report.table(["", "ms per step", "rays", "samples", "M samples/s", "times as long"], rows)


def _phase_table(variants: dict[str, dict[str, float]]) -> str:
    """Milliseconds of a step, and shares of it."""
    names = list(dict.fromkeys(name for phases in variants.values() for name in phases))
    totals = {variant: sum(phases.values()) for variant, phases in variants.items()}
    rows = [
        [
            name,
            *(
                f"{report.number(phases.get(name, 0))} ({100 * phases.get(name, 0) / totals[variant]:.0f} %)"
                for variant, phases in variants.items()
            ),
        ]
        for name in names
    ]
    rows.append(["sum", *(report.number(total) for total in totals.values())])
    return report.table(["phase, ms per step", *variants], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
