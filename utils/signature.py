"""Arguments that YAML passes on to a function of another library, checked against that function's signature."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Collection
from typing import Any, Literal, Union, get_args, get_origin

from utils.config import convert
from utils.registry import ConfigError, nearest


def check_arguments(
    function: Callable[..., Any], arguments: dict[str, Any], where: str, reserved: Collection[str] = ()
) -> dict[str, Any]:
    """`arguments` with plain types converted as the signature of `function` wants them.

    Args:
        function: class or function that will be called with the arguments as keywords.
        arguments: values by name.
        where: full key of the mapping they come from, for errors.
        reserved: parameters that the program itself gives.

    Raises:
        ConfigError: an unknown or missing argument, or a value of a wrong type.
    """
    parameters = inspect.signature(function).parameters
    known = {name: parameter for name, parameter in parameters.items() if name not in reserved}
    for name in arguments:
        if name not in known:
            words = ", ".join(known)
            raise ConfigError(f"{where}.{name}: unknown argument{nearest(str(name), list(known))}; known: {words}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise ConfigError(f"{where}.{name} is required: add {where}.{name}=VALUE to the command line")
    hints = _hints(function)
    return {name: convert(_plain(hints.get(name, Any)), value, f"{where}.{name}") for name, value in arguments.items()}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    # Libraries annotate with names that they import for type checkers only; most of those live here.
    names = vars(typing) | vars(collections.abc)
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function, localns=names)
    except NameError:
        return {}


def _plain(hint: Any) -> Any:
    """`hint` without the classes that YAML cannot write; where containers are allowed, the library checks."""
    if hint in (bool, int, float, str) or get_origin(hint) is Literal:
        return hint
    if get_origin(hint) not in (Union, types.UnionType):
        return Any
    kinds = [kind for kind in get_args(hint) if kind is type(None) or _plain(kind) is not Any]
    has_container = any(get_origin(kind) is not None and kind not in kinds for kind in get_args(hint))
    return Any if has_container or not kinds else Union[tuple(kinds)]  # noqa: UP007
