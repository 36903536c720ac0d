"""Laws of the shipped configurations."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from systems.automatic import STAND_INS, automatic_keys, decided
from systems.experiment import Experiment
from utils import config as config_module
from utils.config import parse, resolve
from utils.run_directory import add_run_keys
from utils.schedule import unfinished

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").glob("*.yaml"))
with (Path(__file__).parent / "published.tsv").open(newline="") as table:
    # Keys and unresolved values of instant-nsr-pl's seven files, commit e5fe3f2; an empty cell is an absent key.
    PUBLISHED = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
NAMES = [name for name in PUBLISHED[0] if name != "key"]


def leaves(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Values by full key; lists of plain values are values."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{where}.{key}" if where else key)
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        for row, item in enumerate(node):
            yield from leaves(item, f"{where}[{row}]")
    else:
        yield where, node


def read(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def experiment(path: Path, tmp_path: Path) -> Experiment:
    missing = re.findall(r"^  (scene|root_dir|category): \?\?\?", path.read_text(), flags=re.MULTILINE)
    config = config_module.read(path, [f"dataset.{key}=somewhere" for key in missing])
    config = decided(config, {key: STAND_INS[key] for key in automatic_keys(config)})
    resolve(config)
    add_run_keys(config, {"exp_dir": str(tmp_path), "train": False})
    return parse(Experiment, config)


@pytest.mark.parametrize("name", NAMES)
def test_published_files_have_the_published_keys_and_values(name: str) -> None:
    expected = {row["key"]: yaml.safe_load(_plain(row[name])) for row in PUBLISHED if row[name] != ""}
    found = {key: _number(value) for key, value in leaves(read(ROOT / "configs" / f"{name}.yaml"))}
    assert found == {key: _number(value) for key, value in expected.items()}


def _plain(cell: str) -> str:
    # Interpolations within a list are quoted in the table, as YAML's flow style needs it.
    return f"'{cell}'" if cell.startswith("${") or cell == "???" else cell


def _number(value: Any) -> Any:
    """YAML 1.1, which the test reads the table with, takes 1e-15 for a text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+e-\d+", value) else value


def test_the_table_is_whole() -> None:
    assert len(PUBLISHED) == 37 + 112
    same = [row for row in PUBLISHED if len({row[name] for name in NAMES}) == 1]
    assert len(same) == 37


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_understood_to_its_last_key_and_its_schedules_end_in_time(path: Path, tmp_path: Path) -> None:
    parsed = experiment(path, tmp_path)
    assert unfinished(parsed, parsed.trainer["max_steps"]) == []
