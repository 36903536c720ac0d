"""The same training, computed in other ways."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from models import ops
from models.ops import GridLayout
from scripts.bench import plain
from scripts.bench.candidates import OURS, PLAIN, REFERENCE

VARIANTS = OURS, REFERENCE, PLAIN


def set_backend(config: Any, backend: str) -> None:
    """Names the backend of every part that has one, in a configuration's dataclasses."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "backend":
            config.backend = backend
        elif is_dataclass(value):
            set_backend(value, backend)


@contextmanager
def computed_as(variant: str) -> Iterator[None]:
    """For a while, fields by plain torch with double backward where the variant says so."""
    if variant != PLAIN:
        yield
        return
    with patch.object(ops, "sdf_field", _sdf_field), patch.object(ops, "field", _field):
        yield


def _sdf_field(
    x: Tensor,
    table: Tensor,
    layout: GridLayout,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    n_active: int | None = None,
    include_xyz: bool = True,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """`ops.sdf_field` with the gradient by autograd."""
    encoding = _encoding(table, layout, n_active)
    output, gradient = plain.distance_field(x.t(), encoding, weights, biases, activation, include_xyz)
    return output.t(), gradient.t()


def _field(
    x: Tensor,
    table: Tensor,
    layout: GridLayout,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    n_active: int | None = None,
    include_xyz: bool = True,
    backend: str = "auto",
) -> Tensor:
    """`ops.field` as torch's layers."""
    rows = x.t()
    features = _encoding(table, layout, n_active)(rows)
    inputs = torch.cat([2 * rows - 1, features], dim=1) if include_xyz else features
    return plain.perceptron(inputs, weights, biases, activation).t()


def _encoding(table: Tensor, layout: GridLayout, n_active: int | None) -> Callable[[Tensor], Tensor]:
    return lambda x: plain.encode(x, table, layout, n_active)
