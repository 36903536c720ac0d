"""Values that change over training: constant, then linear, then constant again.

YAML writes a number, `[start_step, start, end, end_step]`, `[start, end, end_step]` (which begins at 0), or a mapping
with those four names. An integer `end_step` counts optimiser steps and a float counts epochs, as in instant-nsr-pl:
`1000` are steps, `1000.0` and `1e3` are epochs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

from utils.registry import ConfigError, nearest

_NAMES = ("start_step", "start", "end", "end_step")
_EXPECTED = "expected a number, [start_step, start, end, end_step] or [start, end, end_step]"


@dataclass(frozen=True)
class Schedule:
    """A value of training progress.

    Attributes:
        start_step: progress until which the value is `start`.
        start, end: first and last value.
        end_step: progress from which the value is `end`; None for a constant.
    """

    start_step: float
    start: float
    end: float
    end_step: int | float | None

    @classmethod
    def constant(cls, value: float) -> "Schedule":
        return cls(0.0, float(value), float(value), None)

    @classmethod
    def parse(cls, value: Any, where: str = "schedule") -> "Schedule":
        """The schedule that YAML wrote as `value` under the full key `where`.

        Raises:
            ConfigError: another shape or type, or an end that is not after the start.
        """
        if _is_number(value):
            return cls.constant(value)
        if isinstance(value, dict):
            numbers = _from_mapping(value, where)
        elif isinstance(value, list | tuple) and len(value) in (3, 4):
            numbers = list(value) if len(value) == 4 else [0, *value]
        else:
            raise ConfigError(f"{where} is {value!r}; {_EXPECTED}")
        if not all(map(_is_number, numbers)):
            raise ConfigError(f"{where} is {value!r}, which does not hold numbers only; {_EXPECTED}")
        start_step, start, end, end_step = numbers
        if end_step <= start_step:
            raise ConfigError(f"{where} is {value!r}, which ends at {end_step}; it must end after {start_step}")
        return cls(float(start_step), float(start), float(end), end_step)

    @property
    def counts_epochs(self) -> bool:
        return isinstance(self.end_step, float)

    def at(self, step: int, epoch: int = 0) -> float:
        """The value at an optimiser step, or at an epoch where the end is a float."""
        if self.end_step is None:
            return self.start
        now = epoch if self.counts_epochs else step
        share = (now - self.start_step) / (self.end_step - self.start_step)
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)


@runtime_checkable
class Stepwise(Protocol):
    """Options of something that changes at steps of its own."""

    def last_changes(self) -> dict[str, int]:
        """Keys that name steps, and the last step at which each changes anything."""
        ...


def unfinished(config: Any, max_steps: int, where: str = "") -> list[str]:
    """One line for each schedule in a tree of dataclasses that training leaves before its end.

    Schedules are values of type `Schedule`, and keys that a `Stepwise` dataclass names.

    Args:
        config: dataclass, mapping, list, or anything else (which holds no schedule).
        max_steps: optimiser steps of the training; it is a single epoch.
        where: full key of `config`.
    """
    if isinstance(config, Schedule):
        if config.counts_epochs:
            return [f"{where} counts epochs because its end, {config.end_step}, is a float; training is a single epoch"]
        if config.end_step is not None and max_steps >= 0 and config.end_step > max_steps:
            return [f"{where} ends at step {config.end_step}, after trainer.max_steps ({max_steps})"]
        return []
    changes = config.last_changes() if isinstance(config, Stepwise) else {}
    found = [
        f"{where}.{key} changes something at step {step}, after trainer.max_steps ({max_steps})"
        for key, step in changes.items()
        if 0 <= max_steps < step
    ]
    return found + [line for key, value in _children(config, where) for line in unfinished(value, max_steps, key)]


def _children(config: Any, where: str) -> Iterator[tuple[str, Any]]:
    dot = f"{where}." if where else ""
    if is_dataclass(config):
        yield from ((f"{dot}{field.name}", getattr(config, field.name)) for field in fields(config))
    elif isinstance(config, dict):
        yield from ((f"{dot}{key}", value) for key, value in config.items())
    elif isinstance(config, list):
        yield from ((f"{where}[{row}]", value) for row, value in enumerate(config))


def _from_mapping(value: dict, where: str) -> list[Any]:
    for name in value:
        if name not in _NAMES:
            raise ConfigError(
                f"{where}.{name}: unknown key{nearest(str(name), list(_NAMES))}; known: {', '.join(_NAMES)}"
            )
    numbers = {"start_step": 0, **value}
    for name in _NAMES:
        if name not in numbers:
            raise ConfigError(f"{where}.{name} is required; a schedule has {', '.join(_NAMES)}")
    return [numbers[name] for name in _NAMES]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
