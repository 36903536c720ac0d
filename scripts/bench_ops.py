"""Times every operation of `models.ops` against other ways to compute the same, all taking turns in one process.

    python scripts/bench_ops.py                                        the tables of docs/performance.md on this machine
    python scripts/bench_ops.py --quick --only encode                  a glance at some operations
    python scripts/bench_ops.py --compile --json ops.json --plot ops.png --into docs/performance.md

Compared are the plain torch formulation with autograd (twice, where a loss sees a gradient), the closed forms in
torch that define the operations (reference), torch.compile of the plain formulation, bfloat16 autocast where half
precision is harmless, tiny-cuda-nn and nerfacc where they are installed, and the limit: the same number of random
accesses and multiply-adds with nothing around them, measured on this machine among the others.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Threads that spin while they wait starve the others; must be there before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# The repository is no installed package.
import torch  # noqa: E402

from models.ops import GridLayout  # noqa: E402
from scripts.bench import report  # noqa: E402
from scripts.bench.candidates import LIMIT, OURS, PLAIN, RANDOM, Operation  # noqa: E402
from scripts.bench.compiled import with_compiled  # noqa: E402
from scripts.bench.inputs import make_scene  # noqa: E402
from scripts.bench.operations import Grid, distance_operation, grid_operations, operations  # noqa: E402
from scripts.bench.plot import draw  # noqa: E402
from scripts.bench.roofline import Machine, make_machine  # noqa: E402
from scripts.bench.timing import Job, take_turns  # noqa: E402

COLUMNS = "encode", "encode with Jacobian", "encode, backward to the table", "SDF, gradient, full backward"


@dataclass(frozen=True)
class Size:
    """What times grow with."""

    n_samples: int = 65536
    n_levels: int = 16
    log2_table: int = 19
    n_threads: int = 1

    @property
    def layout(self) -> GridLayout:
        """Levels of the published hash grid: 16 resolutions, each 1.447 times the one before."""
        return GridLayout(self.n_levels, 2, self.log2_table, 16, 1.447)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=65536, metavar="N", help="samples of a step (default 65536)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of each candidate (default 9)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu or cuda (default cpu)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="operations whose name contains a word")
    parser.add_argument("--compile", action="store_true", help="torch.compile, too; up to a minute an operation")
    parser.add_argument("--quick", action="store_true", help="few samples and rounds, no tables of growth")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a PNG")
    parser.add_argument("--into", type=Path, metavar="FILE", help="replace the tables in a Markdown file")
    return parser


def main(words: list[str]) -> int:
    arguments = make_parser().parse_args(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    size = Size(4096 if arguments.quick else arguments.samples, n_threads=torch.get_num_threads())
    rounds = 3 if arguments.quick else arguments.rounds
    machine = make_machine(device)
    results: dict[str, Any] = {"machine": report.describe(device), "samples": size.n_samples, "rounds": rounds}
    results["limits"] = machine.rates(rounds) if machine else {}
    results["operations"], results["notes"] = [], []
    for operation in operations(size.layout, size.n_samples, device):
        if arguments.only and not any(word in operation.name for word in arguments.only):
            continue
        if arguments.compile:
            operation, note = with_compiled(operation)
            results["notes"] += [note] if note else []
        results["operations"].append(compare(operation, machine, rounds, device))
    results["growth"] = {} if arguments.quick or arguments.only else growth(size, rounds, device)
    text = markdown(results)
    print(text)
    if arguments.json:
        report.write_json(arguments.json, results)
    if arguments.plot:
        draw(results, arguments.plot)
    if arguments.into:
        report.replace_section(arguments.into, "bench_ops", text)
    return 0


def compare(operation: Operation, machine: Machine | None, rounds: int, device: torch.device) -> dict[str, Any]:
    """Median milliseconds of every candidate and of the limit."""
    jobs: dict[str, Job] = {name: candidate.job() for name, candidate in operation.candidates.items()}
    if machine and operation.work:
        jobs[LIMIT] = machine.job(operation.work)
        if operation.work.reads or operation.work.updates:
            jobs[RANDOM] = machine.job(operation.work.at_random())
    print(operation.name, file=sys.stderr)
    times = take_turns(jobs, rounds, device)
    return {
        "name": operation.name,
        "size": operation.size,
        "ms": {name: found.median for name, found in times.items()},
        "all_ms": {name: found.rounds for name, found in times.items()},
    }


def growth(size: Size, rounds: int, device: torch.device) -> dict[str, list[dict[str, Any]]]:
    """The hash grid and the distance field at other sizes, one property changed at a time."""
    axes = {
        "samples": [replace(size, n_samples=n) for n in (4096, 16384, 65536, 262144)],
        "levels": [replace(size, n_levels=n) for n in (4, 8, 12, 16)],
        "entries of a level": [replace(size, log2_table=n) for n in (12, 15, 17, 18, 19, 21)],
        "threads": [replace(size, n_threads=n) for n in _threads()] if device.type == "cpu" else [],
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for axis, sizes in axes.items():
        found[axis] = [_at(one, axis, max(3, rounds // 3), device) for one in sizes]
    return found


def _threads() -> Iterator[int]:
    n = 1
    while n < (os.cpu_count() or 1):
        yield n
        n *= 2
    yield os.cpu_count() or 1


def _at(size: Size, axis: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Nanoseconds per sample at one size."""
    before = torch.get_num_threads()
    torch.set_num_threads(size.n_threads)
    torch.manual_seed(0)
    grid = Grid.make(size.layout, make_scene(size.n_samples, device).x)
    machine = make_machine(device)
    rows = [*grid_operations(grid), distance_operation(grid)]
    jobs = {row.name: row.candidates[OURS].job() for row in rows} | {PLAIN: rows[-1].candidates[PLAIN].job()}
    if machine:
        jobs |= {f"{LIMIT} of {row.name}": machine.job(row.work) for row in rows if row.work}
    times = take_turns(jobs, rounds, device)
    torch.set_num_threads(before)
    shown = {
        "samples": f"{size.n_samples:,}",
        "levels": f"{size.n_levels}",
        "entries of a level": f"2^{size.log2_table}",
        "threads": f"{size.n_threads}",
    }
    return {"at": shown[axis], "ns": {name: 1e6 * found.median / size.n_samples for name, found in times.items()}}


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/performance.md."""
    parts = [report.sentence(results["machine"]), _operation_table(results["operations"])]
    if results["notes"]:
        parts.append("\n".join(f"- {note}" for note in results["notes"]))
    for axis, rows in results["growth"].items():
        if rows:
            parts.append(_growth_table(axis, rows))
    if results["limits"]:
        parts.append(_limit_table(results["limits"]))
    return "\n\n".join(parts)


def _operation_table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds of ours, and how many times as long the others take."""
    shown = (OURS, LIMIT, RANDOM)
    others = list(dict.fromkeys(name for row in rows for name in row["ms"] if name not in shown))
    lines = []
    for row in rows:
        ms, ours = row["ms"], row["ms"][OURS]
        shares = [f"{100 * ms[name] / ours:.0f} %" if name in ms else "" for name in (LIMIT, RANDOM)]
        ratios = [f"{ms[name] / ours:.1f}" if name in ms else "" for name in others]
        lines.append([row["name"], report.number(ours), report.number(1e6 * ours / row["size"]), *shares, *ratios])
    header = ["operation", "ms", "ns per sample", "of the limit", "of random access"]
    return report.table([*header, *(f"{name}, times" for name in others)], lines)


def _growth_table(axis: str, rows: list[dict[str, Any]]) -> str:
    """Nanoseconds per sample; in brackets the share of the limit."""

    def cell(ns: dict[str, float], name: str) -> str:
        limit = ns.get(f"{LIMIT} of {name}")
        return report.number(ns[name]) + (f" ({100 * limit / ns[name]:.0f} %)" if limit else "")

    lines = []
    for row in rows:
        ns = row["ns"]
        times = ns[PLAIN] / ns[COLUMNS[-1]]
        lines.append([row["at"], *(cell(ns, name) for name in COLUMNS), report.number(ns[PLAIN]), f"{times:.1f}"])
    return report.table([axis, *COLUMNS, "the same, plain torch", "times"], lines)


def _limit_table(limits: dict[str, float]) -> str:
    sizes = [name.removeprefix("read_ns_") for name in limits if name.startswith("read_ns_")]
    rows = [
        ["random read, ns", *(f"{limits[f'read_ns_{size}']:.2f}" for size in sizes)],
        ["random update, ns", *(f"{limits[f'update_ns_{size}']:.2f}" for size in sizes)],
    ]
    table = report.table(["table of so many bytes", *sizes], rows)
    rest = f"{limits['stream_gb_s']:.0f} GB/s in order, {limits['multiply_add_gflop_s']:.0f} GFLOP/s of multiply-adds."
    return f"{table}\n\n{rest}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
