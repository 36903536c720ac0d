"""Activations by the names that configurations use.

`none`, `sigmoid`, `tanh`, `exp`, `trunc_exp`, `lin2srgb`, any function of `torch.nn.functional`, and families with a
number: `scaleX` clamps to [0, X] and divides by X, `clampX` clamps to [0, X], `mulX` multiplies, `+X` and `-X` add.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.registry import ConfigError, nearest

Activation = Callable[[Tensor], Tensor]


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return torch.exp(x)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return upstream * torch.exp(x.clamp_max(15))


def trunc_exp(x: Tensor) -> Tensor:
    """The exponential, whose gradient is that at 15 for everything above: densities may explode, steps may not."""
    return _TruncatedExp.apply(x)  # type: ignore[return-value]


def linear_to_srgb(x: Tensor) -> Tensor:
    """The sRGB transfer function (IEC 61966-2-1), clamped to [0, 1]."""
    curve = 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(x > 0.0031308, curve, 12.92 * x).clamp(0, 1)


_NAMED: dict[str, Activation] = {
    "none": lambda x: x,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "trunc_exp": trunc_exp,
    "lin2srgb": linear_to_srgb,
    "relu": F.relu,
    "softplus": F.softplus,
}

_WITH_NUMBER: dict[str, Callable[[float], Activation]] = {
    "scale": lambda a: lambda x: x.clamp(0, a) / a,
    "clamp": lambda a: lambda x: x.clamp(0, a),
    "mul": lambda a: lambda x: x * a,
    "+": lambda a: lambda x: x + a,
    "-": lambda a: lambda x: x - a,
}


def get_activation(name: str | None) -> Activation:
    """The function called `name` (case does not matter; None is the identity).

    Raises:
        ConfigError: there is none of that name.
    """
    word = (name or "none").lower()
    if word in _NAMED:
        return _NAMED[word]
    for prefix, make in _WITH_NUMBER.items():
        if word.startswith(prefix):
            try:
                return make(float(word[len(prefix) :]))
            except ValueError:
                break
    function: Activation | None = getattr(F, word, None)
    if function is None:
        known = [*_NAMED, *(f"{prefix}<number>" for prefix in _WITH_NUMBER)]
        raise ConfigError(f"unknown activation '{name}'{nearest(word, list(_NAMED))}; known: {', '.join(known)}")
    return function
