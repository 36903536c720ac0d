"""From numbers to tables, and what they were measured on."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

EXTENSIONS = "amx_tile", "avx512_bf16", "avx512f", "avx2"


def describe(device: torch.device) -> dict[str, Any]:
    """The machine, as far as times depend on it."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else (float("nan"),)
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(load[0], 2),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def sentence(facts: dict[str, Any]) -> str:
    """The same, to be read."""
    gpu = f"{facts['gpu']}; " if "gpu" in facts else ""
    return (
        f"{gpu}{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, load {facts['load_before']} "
        f"before the run; {facts['system']}, Python {facts['python']}, torch {facts['torch']}."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    """Three digits that matter; nothing for None."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def write_json(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


def replace_section(path: Path, name: str, text: str) -> None:
    """Puts text between the lines `<!-- NAME -->` and `<!-- /NAME -->` of a Markdown file.

    Raises:
        ValueError: the file has no such lines.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    found = path.read_text()
    if found.count(begin) != 1 or found.count(end) != 1:
        raise ValueError(f"{path} needs one line {begin} and one line {end} after it")
    before, rest = found.split(begin)
    path.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}")


def _processor() -> str:
    """Model and the vector extensions that speed depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    known = facts.get("flags", facts.get("Features", "")).split()
    found = [name for name in EXTENSIONS if name in known]
    return facts.get("model name", platform.machine()) + (f" ({', '.join(found)})" if found else "")
