"""Which implementation of an operation runs: the kernels where they can, else the reference; or a package by name."""

import importlib
import logging
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from models.ops import cuda, native
from utils.registry import ConfigError

Backend = Literal["auto", "reference", "native", "tinycudann", "nerfacc"]

GPU = ("cuda",)  # types of devices that cuda.py serves
# How to get what one may name; versions are those whose calling conventions the adapters speak.
PACKAGES = {
    "tinycudann": "pip install ninja 'git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch'",
    "nerfacc": "pip install 'nerfacc>=0.5.3,<0.6'",
}


def uses_native(op: str, backend: Backend, tensors: Iterable[Tensor], obstacle: str = "") -> bool:
    """Whether `op` runs as a native kernel, of the CPU or of the GPU that its tensors lie on.

    Args:
        op: name of the operation, for messages.
        backend: "native" insists, "reference" declines, "auto" prefers native and tells once why it could not. The
            name of a package is an error here: operations that it has turn to it before they ask.
        tensors: the floating-point arguments.
        obstacle: why the kernel cannot take these arguments, as the caller knows; empty if it can.

    Raises:
        ConfigError: the backend is unknown or does not have the operation, or "native" is impossible.
    """
    if backend == "reference":
        return False
    if backend in PACKAGES:
        raise ConfigError(f"backend of {op} is {backend}, which has no such operation; use backend auto or reference")
    if backend not in ("auto", "native"):
        known = ", ".join(["auto", "reference", "native", *PACKAGES])
        raise ConfigError(f"backend of {op} is '{backend}', expected one of {known}")
    tensors = list(tensors)
    particular = obstacle or _tensor_obstacle(tensors)
    reason = particular or (cuda.obstacle(tensors[0].device) if on_gpu(tensors[0]) else native.obstacle())
    if reason and backend == "native":
        raise ConfigError(f"backend of {op} is native, but {reason}; use backend auto or reference")
    if reason:
        tell_once(f"{op if particular else 'everything'} runs as plain torch, which is slower: {reason}")
    return not reason


def runs_ahead(backend: Backend, tensor: Tensor) -> bool:
    """Whether marching and compositing of rays like `tensor` are queued on a GPU, for which the host need not wait."""
    return on_gpu(tensor) and backend in ("auto", "native") and uses_native("march", backend, [tensor])


def call(function: str, *arguments: Any) -> None:
    """Runs a kernel where its tensors lie; on a GPU it is queued. See native.call and cuda.call."""
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    (cuda if on_gpu(first) else native).call(function, *arguments)


def on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type in GPU


def package(name: str, op: str, tensor: Tensor) -> Any:
    """A package that was named as backend of `op`.

    Raises:
        ConfigError: it is not installed, or the tensors are not where it works.
    """
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: tinycudann found no GPU
        why = " ".join(str(error).split())
        raise ConfigError(f"backend of {op} is {name}, which cannot be imported ({why}): {PACKAGES[name]}") from error
    if not on_gpu(tensor):
        place = tensor.device
        raise ConfigError(f"backend of {op} is {name}, which runs on CUDA only, not on {place}; use backend auto")
    return module


def check_shapes(op: str, **shapes: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raises ValueError unless every tensor has the shape beside it: kernels trust shapes with memory."""
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{op}: {name} is {list(tensor.shape)}, expected {list(shape)}")


def _tensor_obstacle(tensors: list[Tensor]) -> str:
    devices = {str(tensor.device) for tensor in tensors}
    if len(devices) > 1:
        return f"the arguments lie on {' and '.join(sorted(devices))}"
    for tensor in tensors:
        if tensor.device.type not in ("cpu", *GPU):
            return f"there are no {tensor.device.type} kernels"
        if tensor.dtype != torch.float32:
            return f"the kernels take float32 and were given {str(tensor.dtype).removeprefix('torch.')}"
    return ""


@cache
def tell_once(text: str) -> None:
    logging.getLogger("models.ops").warning(text)
