"""The CPU kernels: compiled by whatever C++ compiler there is, once, into a user cache, and called through ctypes.

Plain C and addresses instead of torch's headers: a build takes seconds, needs no matching torch and no ninja. The
name of a cached library is a hash of sources, flags, compiler and processor, so nothing stale is ever loaded.
"""

import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
SOURCE = HERE / "cpu.cpp"
# No -ffast-math: GCC then links code that switches the whole process to flushing subnormals.
FLAGS = ["-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-fno-exceptions", "-fno-rtti", "-fvisibility=hidden"]
TUNE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
COMPILE_SECONDS = 300

log = logging.getLogger("models.ops")


class BuildError(Exception):
    """A compiler did not make a library that loads."""


def call(function: str, *arguments: Any) -> None:
    """Runs an exported function of cpu.cpp on torch's number of threads.

    Args:
        function: its name.
        arguments: tensors (contiguous; their address is passed), integers, floats, ctypes structures or arrays (their
            address) and None (a null pointer).
    """
    library, _ = _loaded()
    assert library is not None
    getattr(library, function)(ctypes.c_int64(torch.get_num_threads()), *map(_as_c, arguments))


def obstacle() -> str:
    """Why there are no kernels on this machine; empty if there are. Compiles them at the first call."""
    return _loaded()[1]


def _as_c(argument: Any) -> Any:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        assert argument.is_contiguous() and argument.device.type == "cpu"
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.byref(argument)


def load() -> tuple[ctypes.CDLL | None, str]:
    """The library, compiled if need be, and nothing; or None and the reason."""
    if sys.platform not in ("linux", "darwin"):
        return None, "native kernels are for Linux and macOS"
    failures = []
    for compiler in _compilers():
        try:
            library = _cached(compiler)
        except BuildError as error:
            failures.append(str(error))
            continue
        _share_threads(library)
        return library, ""
    found = "; ".join(failures) if failures else "there is no C++ compiler"
    return None, f"{found}; `pip install ziglang` brings one that works"


_loaded = cache(load)


def _compilers() -> list[list[str]]:
    """Commands worth trying, best first."""
    commands = [shlex.split(os.environ["CXX"])] if os.environ.get("CXX") else []
    commands += [[path] for name in ("c++", "g++", "clang++") if (path := shutil.which(name))]
    if importlib.util.find_spec("ziglang"):
        # Without -nostdlib++ zig would first build a C++ library, which the kernels do not use.
        commands.append([sys.executable, "-m", "ziglang", "c++", "-nostdlib++"])
    return commands


def _cached(compiler: list[str]) -> ctypes.CDLL:
    """Loads what this compiler made before, or has it made now."""
    name = f"kernels-{_key(compiler)}.so"
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instant-surfaces"
        if not (folder / name).is_file():
            log.warning("compiling kernels with %s (once, a few seconds)", " ".join(compiler))
            folder.mkdir(parents=True, exist_ok=True)
            _compile(compiler, folder / name)
        return _open(folder / name)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        log.warning("compiled kernels cannot be kept (%s); set XDG_CACHE_HOME to a writable folder", error)
        with tempfile.TemporaryDirectory() as temporary:
            _compile(compiler, Path(temporary) / name)
            return _open(Path(temporary) / name)


def _key(compiler: list[str]) -> str:
    digest = hashlib.sha256(repr([compiler, FLAGS, TUNE, platform.platform(), _processor()]).encode())
    for path in [*sorted(HERE.glob("*.h")), SOURCE]:
        digest.update(path.read_bytes())
    executable = shutil.which(compiler[0])
    if executable:  # an updated compiler is another one
        stat = os.stat(executable)
        digest.update(repr((stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()[:24]


def _processor() -> str:
    """What -march=native depends on; caches are shared between machines by network homes and containers."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )


def _compile(compiler: list[str], target: Path) -> None:
    """Writes `target` in one step, so that others compiling at the same time never load half a file."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        output = Path(folder) / target.name
        command = [*compiler, *FLAGS, TUNE, str(SOURCE), "-o", str(output)]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, env=environment)
        except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{' '.join(compiler)} failed: {error}") from error
        if result.returncode or not output.is_file():
            lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
            told = next((line for line in lines if "error" in line), lines[-1])
            raise BuildError(f"{' '.join(compiler)} failed: {told.strip()}")
        os.replace(output, target)


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path} does not load: {error}; delete it") from error


def _share_threads(library: ctypes.CDLL) -> None:
    """Hands torch's OpenMP runtime to the kernels; torch has made it visible to the whole process where it exists."""
    run = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if run is not None:
        library.use_openmp(run)


def keep_large_blocks() -> None:
    """Tells glibc to keep freed memory instead of returning it to the system; elsewhere does nothing.

    A training step allocates the same big arrays again and again; having them faulted in page by page each time
    doubles its cost on a CPU. The price is that memory once used stays with the process.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc = ctypes.CDLL(None)
    if not libc.mallopt(mmap_threshold, 2**30):
        libc.mallopt(mmap_threshold, 2**25)  # the most that old versions take
    libc.mallopt(trim_threshold, 2**31 - 1)
