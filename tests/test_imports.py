"""Imports point one way: launch -> systems -> {datasets, models} -> utils; only models/ops talks to fast code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "utils": {"utils"},
    "datasets": {"datasets", "utils"},
    "models": {"models", "utils"},
    "systems": {"systems", "datasets", "models", "utils"},
}
FAST_CODE = {"ctypes", "triton", "tinycudann", "nerfacc"}
SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the full name instead of a relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert not set(imported(path)) & (set(MAY_IMPORT) | {"launch", "scripts"}) - MAY_IMPORT[package]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_models_ops_talks_to_fast_code(path: Path) -> None:
    assert path.is_relative_to(ROOT / "models" / "ops") or not set(imported(path)) & FAST_CODE
