"""Where the GPU's kernels are tested: on a GPU where there is one, and everywhere by a CPU that plays it.

The stand-in is cuda.cu compiled for this machine by its C++ compiler (cuda_on_cpu.cpp): the same source, the same
launches and arguments, threads one after the other.
"""

import contextlib
import ctypes
import functools
import subprocess
from pathlib import Path

import pytest
import torch

from models.ops import cuda, dispatch, native, nvrtc

HERE = Path(__file__).parent


@functools.cache
def stand_in(folder: Path, architecture: int) -> ctypes.CDLL:
    """The stand-in for a compute capability of 10 * major + minor, which decides how additions in memory are made."""
    compilers = native._compilers()
    if not compilers:
        pytest.skip("no C++ compiler to build the stand-in for a GPU")
    target = folder / f"cuda_on_cpu_{architecture}.so"
    options = ["-O1", "-std=c++17", "-shared", "-fPIC", f"-D__CUDA_ARCH__={architecture}0", f"-I{native.HERE}"]
    subprocess.run([*compilers[0], *options, str(HERE / "cuda_on_cpu.cpp"), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def play(monkeypatch: pytest.MonkeyPatch, library: ctypes.CDLL, device: str = "cpu") -> None:
    """Has tensors on a type of device take the way of those on a GPU, up to the driver."""
    monkeypatch.setattr(dispatch, "GPU", ("cuda", device))
    monkeypatch.setattr(nvrtc, "compile_kernels", lambda architecture: b"machine code")
    monkeypatch.setattr(cuda, "_driver", lambda: library)
    monkeypatch.setattr(cuda, "_loaded", functools.cache(cuda.load))
    monkeypatch.setattr(cuda, "_architecture", lambda device: "sm_90")
    monkeypatch.setattr(cuda, "_current", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "_stream", lambda device: 0)


def device_of(kind: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> torch.device:
    """Device for tensors of a test of `kind`: "gpu", or "sm_80" or "sm_90" played by the CPU."""
    if kind != "gpu":
        play(monkeypatch, stand_in(folder, int(kind.removeprefix("sm_"))))
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    reason = cuda.obstacle(torch.device("cuda", 0))
    assert not reason, reason
    return torch.device("cuda", 0)
