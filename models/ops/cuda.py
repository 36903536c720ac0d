"""The GPU kernels: machine code loaded through the CUDA driver, queued on torch's current stream.

`call` takes the arguments that native.call takes, so an operation need not know where it runs. Only the driver is
called, through ctypes: nothing is built against torch.
"""

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.ops import nvrtc

BLOCK, WARP = 256, 32  # as in cuda.cu


class Launch(NamedTuple):
    """A kernel of cuda.cu on a grid of threads.

    Attributes:
        kernel: its name.
        n_threads: along the first axis, points or rays; none launches nothing.
        n_rows: along the second, levels, features or channels.
        arguments: what it gets.
    """

    kernel: str
    n_threads: int
    n_rows: int
    arguments: tuple[Any, ...]


def _encode(*arguments: Any) -> list[Launch]:
    _, n_levels, n_features, n_points, _, _, _, jacobian = arguments
    kernel = "encode" if jacobian is None else "encode_jacobian"
    return [Launch(f"{kernel}_{n_features}", n_points, n_levels, arguments)]


def _scatter(*arguments: Any) -> list[Launch]:
    _, n_levels, n_features, n_points, _, _, _, u, _ = arguments
    kernel = "scatter" if u is None else "scatter_tangent"
    return [Launch(f"{kernel}_{n_features}", n_points, n_levels, arguments)]


def _composite(*arguments: Any) -> list[Launch]:
    n_rays, _, n_channels, *_ = arguments
    return [Launch("ray_weights", n_rays, 1, arguments), Launch("ray_sums", n_rays, n_channels, arguments)]


def _composite_backward(*arguments: Any) -> list[Launch]:
    n_rays = arguments[0]
    return [
        Launch("weight_gradients", WARP * n_rays, 1, arguments),
        Launch("alpha_gradients", n_rays, 1, arguments),
    ]


# One kernel counts and writes: two could be compiled to instructions that round differently.
def _march_count(rays: Any, n_rays: int, counts: Tensor, _: None) -> list[Launch]:
    return [Launch("march", n_rays, 1, (rays, n_rays, 0, counts, None, None, None, None))]


def _march_fill(rays: Any, n_rays: int, capacity: int, offsets: Tensor, _: None, *arrays: Tensor) -> list[Launch]:
    return [Launch("march", n_rays, 1, (rays, n_rays, capacity, None, offsets, *arrays))]


def _per_item(kernel: str, size: int, rows: int | None = None) -> Callable[..., list[Launch]]:
    """A kernel of as many threads as the argument at `size` says, and rows as the one at `rows`."""
    return lambda *given: [Launch(kernel, given[size], 1 if rows is None else given[rows], given)]


# Functions as cpu.cpp has them: what runs for given arguments.
LAUNCHES: dict[str, Callable[..., list[Launch]]] = {
    "encode": _encode,
    "scatter": _scatter,
    "pull_to_position": _per_item("pull_to_position", 1),
    "push_to_features": _per_item("push_to_features", 1, rows=0),
    "spherical_harmonics": _per_item("spherical_harmonics", 1),
    "neus_alpha": _per_item("neus_alpha", 0),
    "neus_alpha_backward": _per_item("neus_alpha_backward", 0),
    "march_count": _march_count,
    "march_fill": _march_fill,
    "composite": _composite,
    "composite_backward": _composite_backward,
    "distortion": _per_item("distortion", 0),
    "distortion_backward": _per_item("distortion_backward", 0),
}


def call(function: str, *arguments: Any) -> None:
    """Queues a function of cuda.cu on the current stream of the GPU where its tensors lie.

    Args:
        function: its name, see `LAUNCHES`.
        arguments: tensors (contiguous; their address is passed), integers, floats, ctypes structures (passed by
            value) and None (a null pointer).
    """
    devices = {argument.device for argument in arguments if isinstance(argument, Tensor)}
    assert len(devices) == 1, f"{function}: tensors on {devices}"
    device = devices.pop()
    module, _ = _loaded(device)
    assert module is not None
    with _current(device):
        for launch in LAUNCHES[function](*arguments):
            module.launch(launch, _stream(device))


def obstacle(device: torch.device) -> str:
    """Why there are no kernels for a GPU; empty if there are. Compiles them at the first call."""
    return _loaded(device)[1]


class Module:
    """The kernels in the memory of one GPU.

    Raises:
        RuntimeError: the driver refuses; its message says why.
    """

    def __init__(self, ordinal: int, code: bytes):
        self._driver = _driver()
        self._context, self._module = ctypes.c_void_p(), ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        device = ctypes.c_int()
        self._check(self._driver.cuInit(0))
        self._check(self._driver.cuDeviceGet(ctypes.byref(device), ordinal))
        # The context that torch uses; it is never given back, as torch keeps it too.
        self._check(self._driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device))
        self._check(self._driver.cuCtxSetCurrent(self._context))
        self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), code))

    def launch(self, launch: Launch, stream: int) -> None:
        if not launch.n_threads or not launch.n_rows:
            return
        # Threads that autograd starts have no context until torch needs one there.
        self._check(self._driver.cuCtxSetCurrent(self._context))
        values = [_as_c(argument) for argument in launch.arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        blocks, block, shared_memory = (-(-launch.n_threads // BLOCK), launch.n_rows, 1), (BLOCK, 1, 1), 0
        queue = shared_memory, ctypes.c_void_p(stream)
        function = self._function(launch.kernel)
        self._check(self._driver.cuLaunchKernel(function, *blocks, *block, *queue, addresses, None))

    def _function(self, name: str) -> ctypes.c_void_p:
        if name not in self._functions:
            function = ctypes.c_void_p()
            self._check(self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, name.encode()))
            self._functions[name] = function
        return self._functions[name]

    def _check(self, error: int) -> None:
        if error:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(error, ctypes.byref(text))
            raise RuntimeError(f"the CUDA driver says: {(text.value or b'').decode() or f'error {error}'}")


def _as_c(argument: Any) -> Any:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return argument


def load(device: torch.device) -> tuple[Module | None, str]:
    """The kernels on a GPU, compiled if need be, and nothing; or None and the reason."""
    if torch.version.hip:
        return None, "the GPU kernels are for NVIDIA"
    try:
        with _current(device):
            return Module(device.index or 0, nvrtc.compile_kernels(_architecture(device))), ""
    except (nvrtc.BuildError, OSError, RuntimeError) as error:  # OSError: there is no driver
        return None, str(error)


_loaded = cache(load)


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _architecture(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _current(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device)


def _stream(device: torch.device) -> int:
    return torch.cuda.current_stream(device).cuda_stream
