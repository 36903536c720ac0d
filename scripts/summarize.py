"""The results of many runs as one table: a row per run, a column per metric in their metrics.json.

    python scripts/summarize.py exp/                                   every run below a folder, as Markdown
    python scripts/summarize.py exp/a exp/b --columns 'test.*' geometry.chamfer mesh.faces --csv results.csv

What was not computed, because something that it needs was not given, says so. Runs without metrics.json are listed as
unfinished.
"""

import argparse
import csv
import fnmatch
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from systems import geometry_metrics  # noqa: E402
from utils.registry import ConfigError  # noqa: E402

NOT_COMPUTED = "not computed"
TIME = "training.minutes"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the options")


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """The options."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="runs, or folders above them")
    text = "names of numbers such as mesh.faces, wildcards allowed (default: all metrics, and the time of training)"
    parser.add_argument("--columns", nargs="+", metavar="NAME", help=text)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all digits of the table there")
    return parser.parse_args(words)


@dataclass
class Row:
    """One run.

    Attributes:
        name: its folder, seen from the folder above all runs.
        values: numbers by column, None where one was not computed.
    """

    name: str
    values: dict[str, float | None]


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The runs in folders, each once, in order of their paths.

    Raises:
        ConfigError: a folder is missing or holds no run.
    """
    runs: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder; expected a run, or a folder above some")
        # A training that did not finish has its configuration; what evaluate.py wrote alone has its metrics.
        found = {path.parent.parent for path in folder.rglob("config/parsed.yaml")}
        found |= {path.parent for path in folder.rglob("metrics.json")}
        if not found:
            raise ConfigError(f"{folder} holds no run: neither config/parsed.yaml nor metrics.json, at any depth")
        runs |= {path.resolve() for path in found}
    return sorted(runs)


def read_rows(runs: list[Path]) -> tuple[list[Row], list[str]]:
    """The rows of runs with results, and lines about those without."""
    top = runs[0].parent
    while not all(run.is_relative_to(top) for run in runs):
        top = top.parent
    rows, without = [], []
    for run in runs:
        name, path = str(run.relative_to(top)), run / "metrics.json"
        if not path.is_file():
            without.append(f"{name}: unfinished, no metrics.json")
            continue
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            without.append(f"{name}: metrics.json is broken ({error})")
            continue
        if isinstance(content, dict):
            rows.append(Row(name, _numbers(content)))
        else:
            without.append(f"{name}: metrics.json holds no mapping")
    return rows, without


def choose_columns(rows: list[Row], patterns: list[str] | None) -> list[str]:
    """Columns that any row has: in the order of the patterns, or all metrics in the order of the files.

    Raises:
        ConfigError: no column matches a pattern.
    """
    known = list(dict.fromkeys(name for row in rows for name in row.values))
    if patterns is None:
        return [name for name in known if _is_metric(name)]
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matching = fnmatch.filter(known, pattern)
        if not matching:
            raise ConfigError(f"--columns {pattern}: no run has such a number; there are {', '.join(known)}")
        chosen |= dict.fromkeys(matching)
    return list(chosen)


def markdown(rows: list[Row], columns: list[str], without: list[str]) -> str:
    """The table, and the runs that are not in it."""
    lines = ["| " + " | ".join(["run", *columns]) + " |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join([row.name, *(_shown(row, column) for column in columns)]) + " |")
    notes = [f"* {line}" for line in without]
    return "\n".join([*lines, "", *notes] if rows and notes else lines if rows else notes)


def write_csv(path: Path, rows: list[Row], columns: list[str]) -> None:
    """All digits; empty where a run has no such number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", *columns])
        for row in rows:
            found = [(column in row.values, row.values.get(column)) for column in columns]
            writer.writerow([row.name, *("" if not has else NOT_COMPUTED if x is None else x for has, x in found)])


def _is_metric(name: str) -> bool:
    """Whether a number is a score, such as `geometry.f_score@1%`, or the time of training."""
    if name.startswith("test."):
        return name != "test.n_views"
    return name == TIME or name.split("@")[0].split(".")[-1] in geometry_metrics.names()


def _numbers(content: dict[str, Any], where: str = "") -> dict[str, float | None]:
    """Numbers by their full name; lists, texts and sections that are null hold none."""
    found: dict[str, float | None] = {}
    for key, value in content.items():
        name = f"{where}.{key}" if where else key
        if isinstance(value, dict):
            found |= _numbers(value, name)
        elif (value is None and where) or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[name] = value
    return found


def _shown(row: Row, column: str) -> str:
    value = row.values.get(column)
    if value is None:
        return NOT_COMPUTED if column in row.values else ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def main(words: list[str]) -> int:
    """Exit code: 0, or 2 after a mistake of the user's, told in one line."""
    try:
        arguments = parse_arguments(words)
        rows, without = read_rows(find_runs(arguments.folders))
        columns = choose_columns(rows, arguments.columns)
        text = markdown(rows, columns, without)
        print(text)
        if arguments.markdown is not None:
            arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
            arguments.markdown.write_text(text + "\n")
        if arguments.csv is not None:
            write_csv(arguments.csv, rows, columns)
        for path in (arguments.markdown, arguments.csv):
            if path is not None:
                print(path.resolve())
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
