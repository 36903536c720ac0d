"""Writes configs/README.md: every key of a configuration with its type, default and meaning, from the dataclasses.

    python scripts/config_reference.py

A field's meaning is the sentence under it; a field without one is an error. A test keeps the file fresh.
"""

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import datasets  # noqa: E402
import models  # noqa: E402
import systems  # noqa: E402
from systems.experiment import Experiment  # noqa: E402
from utils.config import INERT  # noqa: E402
from utils.registry import Registry  # noqa: E402
from utils.schedule import Schedule  # noqa: E402

_ORDER = [
    *("data set", "model", "geometry", "texture", "encoding", "network", "occupancy", "opacity law"),
    *("implicit function", "voxel grid", "decoder", "ray sampler", "renderer", "ray marcher", "global encoder"),
    *("system", "exposure", "loss", "metric", "geometry metric"),
]
TARGET = ROOT / "configs" / "README.md"
INTRODUCTION = """\
# Configuration

Written by `scripts/config_reference.py`; do not edit.

A configuration is one YAML file, and `key=value` words on the command line that win over it. Keys are told by their
full path: `model.geometry.mlp_network_config.n_neurons=32`, `system.scheduler.schedulers[0].args.gamma=0.9`.

* `name` (of encodings and networks: `otype`) chooses a **part**; the other keys beside it are the part's own.
* `???` marks a value that must be given. A key that nobody knows, or a value of a wrong type, stops the program.
* `${a.b}` is the value of another key. Functions: `${add:x,y}`, `sub`, `mul`, `div`, `idiv` (rounded down),
  `${basename:path}`, and `${calc_exp_lr_decay_rate:f,n}`, the factor per step that multiplies by f over n steps.
* A **schedule** is a number, or `[start_step, start, end, end_step]`: `start` until `start_step`, linear to `end` at
  `end_step`, constant after. Three values leave out a `start_step` of 0; a mapping with the four names is the same.
  An integer `end_step` counts steps, a float counts epochs (training is a single epoch).
"""


def reference() -> str:
    """The whole page."""
    registries = _registries()
    sections: dict[type, None] = {}
    parts = []
    for registry in registries:
        parts += _registry_page(registry, sections)
    top = _table(Experiment, sections)
    nested = []
    # Sections have sections: the mapping grows while it is read.
    for schema in _growing(sections):
        nested += [f"### Section `{_title(schema)}`", _first_line(schema), _table(schema, sections)]
    inert = "\n".join(["| key | reason |", "|---|---|", *(f"| `{key}` | {reason} |" for key, reason in INERT.items())])
    chapters: list[str] = [
        INTRODUCTION,
        "## Top level",
        top,
        *parts,
        "## Sections that several parts share",
        *nested,
        "## Keys without effect",
        "Published configurations have them; they are dropped with a notice.",
        inert,
    ]
    return "\n\n".join(chapter.strip() for chapter in chapters if chapter) + "\n"


def _registries() -> list[Registry]:
    found: dict[int, Registry] = {}
    for package in (datasets.datasets, models.models, systems.systems):
        package.names()
        # Modules of the package import the registries that they fill. The package itself may hide one of them: after
        # `import systems.loss_functions` the name `systems.loss_functions` is the module.
        modules = [module for name, module in sys.modules.items() if name.split(".")[0] == package.package]
        found |= {id(one): one for module in modules for one in vars(module).values() if isinstance(one, Registry)}
    return sorted(found.values(), key=lambda registry: _ORDER.index(registry.kind))


def _registry_page(registry: Registry, sections: dict[type, None]) -> list[str]:
    names: dict[Any, list[str]] = {}
    for name in registry.names():
        part = registry.get(name)
        # Plug-ins of the running process are not part of the program.
        if part.__module__.split(".")[0] in ("datasets", "models", "systems"):
            names.setdefault(part, []).append(name)
    page = [f"## Parts: {registry.kind}"]
    prefix = {"loss": "system.loss.lambda_", "metric": "metrics.", "geometry metric": ""}.get(registry.kind)
    if prefix is not None:
        return [*page, _functions_table(names, prefix)]
    for part, words in names.items():
        heading = ", ".join(f"`{registry.key}: {word}`" for word in words)
        page += [f"### {heading}", _first_line(part), _table(part.Config, sections)]
    return page


def _functions_table(names: dict[Any, list[str]], prefix: str) -> str:
    rows = ["| key | meaning | options |", "|---|---|---|"]
    for function, words in names.items():
        given = [one for one in inspect.signature(function).parameters.values() if one.default is not one.empty]
        options = ", ".join(f"`{option.name}` ({_value(option.default)})" for option in given)
        rows.append(f"| `{prefix}{words[0]}` | {_first_line(function)} | {options} |")
    return "\n".join(rows)


def _table(schema: type, sections: dict[type, None]) -> str:
    sentences, hints = _sentences(schema), get_type_hints(schema)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for option in fields(schema):
        if option.name not in sentences:
            raise SystemExit(f"{schema.__qualname__}.{option.name} has no sentence under it; write one")
        for one in _dataclasses(hints[option.name]):
            sections.setdefault(one)
        kind = _part_type(option, hints[option.name]) or _type(hints[option.name])
        rows.append(f"| `{option.name}` | {kind} | {_default(option)} | {sentences[option.name]} |")
    return "\n".join(rows) if len(rows) > 2 else "No options."


def _sentences(schema: type) -> dict[str, str]:
    """The texts under the fields of a dataclass and of the classes that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(schema.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(tree, ast.ClassDef)
        for statement, below in zip(tree.body[:-1], tree.body[1:], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                    found[statement.target.id] = " ".join(str(below.value.value).split()).replace("|", "\\|")
    return found


def _part_type(option: "Field[Any]", hint: Any) -> str:
    registry = option.metadata.get("registry")
    if registry is None:
        return ""
    article = "an" if registry.kind[0] in "aeiou" else "a"
    return f"{article} {registry.kind}" + (" or `null`" if type(None) in get_args(hint) else "")


def _type(hint: Any) -> str:
    """An annotation as a newcomer reads it."""
    origin, arguments = get_origin(hint), get_args(hint)
    words = {bool: "true or false", int: "integer", float: "number", str: "text", Schedule: "schedule", Any: "anything"}
    if hint in words:
        return words[hint]
    if hint is type(None):
        return "`null`"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping to {_type(arguments[1])}"
    return f"section `{_title(hint)}`"


def _title(schema: type) -> str:
    """`VarianceConfig`, or, for the options of a part that no key chooses, the name of its class."""
    return schema.__qualname__.removesuffix(".Config")


def _dataclasses(hint: Any) -> Iterator[type]:
    """Schemas that an annotation mentions; a schedule is a value, not a section."""
    if is_dataclass(hint) and hint is not Schedule:
        yield hint  # type: ignore[misc]
    for argument in get_args(hint):
        yield from _dataclasses(argument)


def _default(option: "Field[Any]") -> str:
    if option.default is not MISSING:
        return _value(option.default)
    if option.default_factory is MISSING:
        return "added by the program" if "is_added" in option.metadata else "**required**"
    return _value(option.default_factory(), option.metadata.get("registry"))


def _value(value: Any, registry: Registry | None = None) -> str:
    """A default as YAML writes it."""
    if registry is not None and value is not None:
        words = [name for name in registry.names() if getattr(registry.get(name), "Config", None) is type(value)]
        return f"`{getattr(value, registry.key, words[0])}`"
    if isinstance(value, Schedule) and value.end_step is None:
        return _value(value.start)
    if is_dataclass(value):
        changed = [one.name for one in fields(value) if getattr(value, one.name) != _plain_default(one)]
        return ", ".join(f"`{name}: {getattr(value, name)}`" for name in changed) or "its defaults"
    words = {None: "null", True: "true", False: "false", "": '""'}
    return f"`{words[value] if isinstance(value, bool | str | None) and value in words else value}`"


def _plain_default(option: "Field[Any]") -> Any:
    return option.default_factory() if option.default_factory is not MISSING else option.default


def _growing(sections: dict[type, None]) -> Iterator[type]:
    done: set[type] = set()
    while waiting := [schema for schema in sections if schema not in done]:
        done.add(waiting[0])
        yield waiting[0]


def _first_line(thing: Any) -> str:
    """The first paragraph of a docstring; the one that a dataclass makes up for itself says nothing."""
    text = inspect.getdoc(thing) or ""
    paragraph = " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")
    return "" if paragraph.startswith(f"{thing.__name__}(") else paragraph


if __name__ == "__main__":
    TARGET.write_text(reference())
    print(TARGET.relative_to(ROOT))
