"""From YAML to dataclasses: `load` reads a file, `parse` turns its tree into the schema's instances.

`load` is `read`, which keeps interpolations, and `resolve`, which replaces them by their values.

A schema is a dataclass; its fields are the keys. A field made by `slot` holds a part that YAML chooses by name: the
mapping under it carries the registry's key (`name` or `otype`), and everything else in it belongs to the `Config` of
the class registered under that name. Whatever a schema does not know is an error, told in one line.
"""

import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from utils.notice import notice
from utils.registry import ConfigError, Registry, nearest
from utils.resolvers import register_resolvers
from utils.schedule import Schedule

T = TypeVar("T")

INERT = {
    "dataset.near_plane": "rays start where they enter the scene's box",
    "dataset.far_plane": "rays end where they leave the scene's box",
}
"""Keys of published configurations that have no effect here, with the reason; they are dropped with a notice."""


def slot(registry: Registry, default: Any = MISSING) -> Any:
    """A field that holds the `Config` of a part of `registry`.

    Args:
        registry: where the part's name is looked up.
        default: None, or a function that makes the `Config` used when the key is absent; without it the key is
            required.
    """
    metadata = {"registry": registry}
    if default is MISSING or default is None:
        return field(default=default, metadata=metadata)
    return field(default_factory=default, metadata=metadata)


def check_least(config: Any, **least: float) -> None:
    """Checks that options are as large as they have to be; lists, in every item.

    Args:
        config: an instance of a schema.
        **least: smallest value of each option.

    Raises:
        ConfigError: one is smaller, or no number.
    """
    for key, smallest in least.items():
        value = getattr(config, key)
        if not all(item >= smallest for item in (value if isinstance(value, list) else [value])):
            raise ConfigError(f"{key} is {value}; expected {smallest} or more")


def load(path: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration in a YAML file, with `key=value` overrides applied and every interpolation resolved.

    Raises:
        ConfigError: no such file, broken YAML, a bad override or interpolation, or a value left at `???`.
    """
    config = read(path, overrides)
    resolve(config)
    return config


def read(path: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration in a YAML file, with `key=value` overrides applied and interpolations as they are written.

    Raises:
        ConfigError: no such file, broken YAML, a bad override, or a value left at `???`.
    """
    config = _read(Path(path))
    for override in overrides:
        _override(config, override)
    for key in _unset(OmegaConf.to_container(config, resolve=False)):
        raise ConfigError(f"{key} is required: add {key}=VALUE to the command line")
    return config


def resolve(config: DictConfig) -> None:
    """Replaces the interpolations in a configuration by their values, and drops its keys without effect.

    Raises:
        ConfigError: an interpolation without a value.
    """
    register_resolvers()
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {_first_line(error)}") from error
    _drop_inert(config)


def parse(schema: type[T], node: Any, where: str = "") -> T:
    """An instance of the dataclass `schema` filled from a mapping.

    Args:
        schema: dataclass whose fields are the known keys.
        node: mapping from YAML, interpolations resolved or resolvable.
        where: full key of `node`, for errors.

    Raises:
        ConfigError: an unknown key, a wrong type, a missing value, or a check of the schema's that fails.
    """
    values = _mapping(node, where)
    options = {option.name: option for option in fields(schema)}  # type: ignore[arg-type]
    hints = get_type_hints(schema)
    for key in values:
        if key not in options:
            known = ", ".join(options) or "none"
            raise ConfigError(f"{_join(where, key)}: unknown key{nearest(str(key), list(options))}; known: {known}")

    parsed = {}
    for name, option in options.items():
        key = _join(where, name)
        if values.get(name, "???") == "???":
            if name in values or (option.default is MISSING and option.default_factory is MISSING):
                raise ConfigError(f"{key} is required: add {key}=VALUE to the command line")
        elif "registry" in option.metadata:
            parsed[name] = _part(option.metadata["registry"], hints[name], values[name], key)
        else:
            parsed[name] = convert(hints[name], values[name], key)
    try:
        return schema(**parsed)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        beside = [other.name for other in path.parent.glob("*.yaml")]
        raise ConfigError(f"{path}: no such configuration file{nearest(path.name, beside)}")
    try:
        config = OmegaConf.load(path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: broken YAML, {error.problem}") from error
    except (yaml.YAMLError, OSError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path}: expected a mapping of keys at the top, found a list")
    return config


def _override(config: DictConfig, override: str) -> None:
    key, equals, _ = override.partition("=")
    if not key or not equals:
        raise ConfigError(f"override '{override}' is not of the form key=value, such as trainer.max_steps=1000")
    try:
        # The value's grammar (YAML with interpolations) is OmegaConf's; the key may index lists, so it is set below.
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value{override[len(key) :]}"]), resolve=False)
        OmegaConf.update(config, key, value["value"])  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException, IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"override '{override}': {_first_line(error)}") from error


def _unset(node: Any, where: str = "") -> Iterator[str]:
    """Full keys whose value is still `???`."""
    if node == "???":
        yield where
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _unset(value, _join(where, key))
    elif isinstance(node, list):
        for row, value in enumerate(node):
            yield from _unset(value, f"{where}[{row}]")


def _drop_inert(config: DictConfig) -> None:
    for key, reason in INERT.items():
        section, _, name = key.rpartition(".")
        if isinstance(node := OmegaConf.select(config, section), DictConfig) and name in node:
            del node[name]
            notice(f"{key} has no effect here: {reason}")


def _part(registry: Registry, hint: Any, node: Any, where: str) -> Any:
    if node is None and type(None) in get_args(hint):
        return None
    values = dict(_mapping(node, where))
    key = _join(where, registry.key)
    name = values.pop(registry.key, "???")
    if not isinstance(name, str) or name == "???":
        raise ConfigError(f"{key} is required, the name of a {registry.kind}; known: {', '.join(registry.names())}")
    schema = registry.get(name, key).Config
    if registry.key in {option.name for option in fields(schema)}:
        values[registry.key] = name
    return parse(schema, values, where)


def convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `hint` wants it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return value
    if hint is Schedule:
        return Schedule.parse(value, where)
    if is_dataclass(hint):
        return parse(hint, value, where)  # type: ignore[arg-type]
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where)
    if origin is list and isinstance(value, list):
        return [convert(arguments[0], item, f"{where}[{row}]") for row, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: convert(arguments[1], item, _join(where, key)) for key, item in value.items()}
    if origin is Literal and any(value == choice and type(value) is type(choice) for choice in arguments):
        return value
    if hint in _SCALARS:
        try:
            return _SCALARS[hint](value)
        except (ValueError, OverflowError):
            pass
    raise ConfigError(f"{where} is {value!r}, expected {_describe(hint)}{nearest(str(value), _choices(hint))}")


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    kinds = get_args(hint)
    if type(value) in kinds:
        return value
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1 and is_dataclass(others[0]):
        return parse(others[0], value, where)  # type: ignore[arg-type]
    for kind in others:
        try:
            return convert(kind, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} is {value!r}, expected {_describe(hint)}{nearest(str(value), _choices(hint))}")


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _to_int(value: Any) -> int:
    """Also whole floats: resolvers divide, and people write 1e5."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return int(value)
    raise ValueError


def _to_float(value: Any) -> float:
    """Also texts such as "1e-4", which a quoted value or plain YAML 1.1 leaves behind."""
    if isinstance(value, int | float | str) and not isinstance(value, bool) and float(value) == float(value):
        return float(value)
    raise ValueError


def _to_text(value: Any) -> str:
    """Also numbers: a scene may be called 24."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError


_SCALARS: dict[Any, Any] = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_text}
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", type(None): "null"}


def _describe(hint: Any) -> str:
    """What a value of this annotation is called in an error."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(repr, arguments))
    if origin is list:
        return f"a list, each item {_describe(arguments[0])}"
    if origin is dict:
        return "a mapping"
    return _WORDS.get(hint, "a section of keys")


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    return [choice for kind in get_args(hint) for choice in _choices(kind)]


def _mapping(node: Any, where: str) -> dict:
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=True)
    if not isinstance(node, dict):
        raise ConfigError(f"{where} is {node!r}, expected a section of keys")
    return node


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _first_line(error: Exception) -> str:
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error)
    return (problem or type(error).__name__).splitlines()[0]
