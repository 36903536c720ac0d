"""Tensors of a GPU that the CPU plays: they compute on the CPU and say that they lie elsewhere, on `DEVICE`.

What a GPU would refuse is refused: an operation on numbers of both places, but for single numbers of the host, and
NumPy. What would make the host wait is refused on demand.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from systems import trainer

# The one type of device besides the CPU that every build of torch knows how to be on.
DEVICE = torch.device("meta")
PRECISION = pl.plugins.precision.Precision  # what trainers on it compute with
# Looks at numbers, and results whose size only numbers tell.
LOOKS = ("local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "equal")
HOST_CHOICES = ("index", "index_put", "index_put_")  # operations that a GPU lets the host choose rows of


class GpuTensor(torch.Tensor):
    """A tensor on `DEVICE`.

    Attributes:
        here: its numbers, a tensor on the CPU.
    """

    here: torch.Tensor
    may_look = True  # whether the host may wait for the GPU
    __torch_function__ = torch._C._disabled_torch_function_impl
    is_meta = False

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "GpuTensor":
        place = {"strides": here.stride(), "storage_offset": here.storage_offset(), "device": DEVICE}
        tensor = torch.Tensor._make_wrapper_subclass(cls, here.size(), dtype=here.dtype, **place)
        tensor.here = here
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return run(function, arguments, options or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"GpuTensor({self.here})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.__reduce_ex__(protocol)  # files are read on any device

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor on a GPU to numpy")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        return made(torch.tensor, data, **{"dtype": self.dtype, "device": self.device} | options)


def made(maker: Callable[..., torch.Tensor], *arguments: Any, **options: Any) -> torch.Tensor:
    """What `maker` makes of numbers of the host, on the device that the options name."""
    here = maker(*arguments, **options | {"device": "cpu"})
    return here.to(options["device"])


def run(function: Any, arguments: Any, options: Any) -> Any:
    """An operation that has tensors of the GPU or is asked for one."""
    given = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, torch.Tensor)]
    is_there = [isinstance(tensor, GpuTensor) for tensor in given]
    device = options.get("device")
    if not any(is_there) and not _is_gpu(device):
        return function(*arguments, **options)
    name = function.overloadpacket.__name__.strip("_")
    moves = name == "copy" or (device is not None and bool(given))
    on_host = [tensor for tensor, there in zip(given, is_there, strict=True) if not there]
    if not moves and any(tensor.dim() for tensor in on_host) and name not in HOST_CHOICES:
        raise RuntimeError(f"{function} has tensors on a GPU and on the CPU: {[tuple(t.shape) for t in given]}")
    crosses = moves and len({*is_there, device is None or _is_gpu(device)}) > 1
    if not GpuTensor.may_look and (crosses or _looks(name, arguments, options) or (on_host and not moves)):
        raise AssertionError(f"the host waits for a GPU in {function}")

    here, how = tree_map(lambda leaf: leaf.here if isinstance(leaf, GpuTensor) else leaf, (arguments, options))
    if device is not None:
        how |= {"device": torch.device("cpu")} | ({"pin_memory": False} if "pin_memory" in how else {})
    result = function(*here, **how)
    if name == "local_scalar_dense" or not (any(is_there) if device is None else _is_gpu(device)):
        return result
    result = tree_map(lambda leaf: GpuTensor(leaf) if type(leaf) is torch.Tensor else leaf, result)
    return result if device is not None else return_and_correct_aliasing(function, arguments, options, result)


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _looks(name: str, arguments: Any, options: Any) -> bool:
    if name.startswith("repeat_interleave"):
        return options.get("output_size") is None
    chosen_by = arguments[1] if name.startswith("index") and isinstance(arguments[1], (list, tuple)) else ()
    by_flags = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in chosen_by)
    return by_flags or name.startswith(LOOKS)


class _Operations(TorchDispatchMode):
    """Sees operations without a tensor of the GPU that make one or take one there."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return run(function, arguments, options or {})


class _Makers(TorchFunctionMode):
    """Sees what torch makes of numbers of the host without an operation."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function in (torch.tensor, torch.as_tensor) and _is_gpu(options.get("device")):
            return made(function, *arguments, **options)
        return function(*arguments, **options)


class _Accelerator(pl.accelerators.CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        pass


@contextmanager
def playing(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """`DEVICE` as long as it can be computed on, also by a trainer of any experiment."""
    autocast, generator = torch.autocast, torch.Generator
    on_cpu = lambda device: "cpu" if _is_gpu(device) else device  # noqa: E731
    monkeypatch.setattr(torch, "autocast", lambda device, *a, **options: autocast(on_cpu(device), *a, **options))
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator(on_cpu(device)))
    fused = lambda: ["cpu", "cuda", DEVICE.type]  # noqa: E731
    monkeypatch.setattr(sys.modules[torch.optim.Optimizer.__module__], "_get_fused_kernels_supported_devices", fused)
    strategy = lambda: SingleDeviceStrategy(DEVICE, _Accelerator(), precision_plugin=PRECISION())  # noqa: E731
    monkeypatch.setattr(trainer, "_device", lambda gpu: {"strategy": strategy(), "accelerator": "auto"})
    with _Makers(), _Operations():
        yield DEVICE


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Refuses what makes the host wait."""
    GpuTensor.may_look = False
    try:
        yield
    finally:
        GpuTensor.may_look = True
