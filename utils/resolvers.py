"""Functions that a configuration may call: `${mul:2,${model.radius}}`."""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def exponential_decay_rate(factor: float, n_steps: float) -> float:
    """The factor per step that multiplies by `factor` over `n_steps`; a phase without steps is never entered: 1."""
    return factor ** (1 / n_steps) if n_steps > 0 else 1.0


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with an error that names the numbers that are none."""

    def compute(*numbers: Any) -> Any:
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"{', '.join(map(repr, numbers))} are not all numbers")
        return function(*numbers)

    return compute


_RESOLVERS = {
    "calc_exp_lr_decay_rate": _arithmetic(exponential_decay_rate),
    "add": _arithmetic(operator.add),
    "sub": _arithmetic(operator.sub),
    "mul": _arithmetic(operator.mul),
    "div": _arithmetic(operator.truediv),
    "idiv": _arithmetic(operator.floordiv),
    "basename": lambda path: Path(path).name,
}


def register_resolvers() -> None:
    """Makes the resolvers known to OmegaConf; may be called again."""
    for name, resolver in _RESOLVERS.items():
        OmegaConf.register_resolver(name, resolver, replace=True, annotation_validation="off")
