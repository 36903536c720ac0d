"""Which implementation of an operation runs: the native kernels where they can, else the reference."""

import logging
from collections.abc import Iterable
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from models.ops import native
from utils.registry import ConfigError

Backend = Literal["auto", "reference", "native"]


def uses_native(op: str, backend: Backend, tensors: Iterable[Tensor], obstacle: str = "") -> bool:
    """Whether `op` runs as a native kernel.

    Args:
        op: name of the operation, for messages.
        backend: "native" insists, "reference" declines, "auto" prefers native and tells once why it could not.
        tensors: the floating-point arguments.
        obstacle: why the kernel cannot take these arguments, as the caller knows; empty if it can.

    Raises:
        ConfigError: the backend is unknown, or "native" is impossible.
    """
    if backend == "reference":
        return False
    if backend not in ("auto", "native"):
        raise ConfigError(f"backend of {op} is '{backend}', expected auto, reference or native")
    particular = obstacle or _tensor_obstacle(tensors)
    reason = particular or native.obstacle()
    if reason and backend == "native":
        raise ConfigError(f"backend of {op} is native, but {reason}; use backend auto or reference")
    if reason:
        tell_once(f"{op if particular else 'everything'} runs as plain torch, which is slower: {reason}")
    return not reason


def check_shapes(op: str, **shapes: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raises ValueError unless every tensor has the shape beside it: kernels trust shapes with memory."""
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{op}: {name} is {list(tensor.shape)}, expected {list(shape)}")


def _tensor_obstacle(tensors: Iterable[Tensor]) -> str:
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"there are no {tensor.device.type} kernels yet"
        if tensor.dtype != torch.float32:
            return f"the kernels take float32 and were given {str(tensor.dtype).removeprefix('torch.')}"
    return ""


@cache
def tell_once(text: str) -> None:
    logging.getLogger("models.ops").warning(text)
