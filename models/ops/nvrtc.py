"""Machine code of cuda.cu, made by NVIDIA's run-time compiler, which CUDA builds of torch bring along, or by nvcc.

The compiler gets the sources as text, so no CUDA headers are needed; what it made is kept in a user cache. The name of
a cached file is a hash of sources, options, compiler and architecture, so nothing stale is ever loaded.
"""

import ctypes
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
SOURCE = HERE / "cuda.cu"
HEADERS = ("entries_cuda.h", "kernels.h", "lanes.h", "rays.h")
# The parts of the C library that the headers use; the run-time compiler has none.
STANDARD = {
    "stdint.h": "using uint8_t = unsigned char; using int32_t = int; using uint32_t = unsigned; "
    "using int64_t = long long; using uint64_t = unsigned long long;",
    "string.h": "",
    "math.h": "#define INFINITY __int_as_float(0x7f800000)",
}
OPTIONS = ["-std=c++17"]
COMPILE_SECONDS = 300

log = logging.getLogger("models.ops")


class BuildError(Exception):
    """A compiler did not make machine code."""


@dataclass(frozen=True)
class Compiler:
    """Something that turns cuda.cu into machine code.

    Attributes:
        name: as messages tell it, with its version: another one makes other code.
        compile: from an architecture such as "sm_90" to a cubin.
    """

    name: str
    compile: Callable[[str], bytes]


def compile_kernels(architecture: str) -> bytes:
    """Machine code (a cubin) for a GPU, from the cache or made now; the one door to all compilers.

    Args:
        architecture: such as "sm_90".

    Raises:
        BuildError: there is no compiler, or none could; the message names the remedy.
    """
    failures = []
    for compiler in compilers():
        try:
            return _cached(compiler, architecture)
        except BuildError as error:
            failures.append(str(error))
    found = "; ".join(failures) if failures else "there is no CUDA compiler"
    raise BuildError(f"{found}; `pip install torch` for CUDA brings NVRTC, and a CUDA toolkit nvcc")


def compilers() -> list[Compiler]:
    """What there is on this machine, best first."""
    found = [_run_time_compiler(library) for library in _open_libraries()]
    nvcc = shutil.which("nvcc")
    if nvcc:
        found.append(Compiler(f"{nvcc} {_nvcc_version(nvcc)}", lambda arch: _run_nvcc(nvcc, arch)))
    return found


def _open_libraries() -> list[ctypes.CDLL]:
    """NVRTC: the copy that torch has loaded or the system knows, else the one that was installed beside torch."""
    major = (torch.version.cuda or "").split(".")[0]
    spec = importlib.util.find_spec("nvidia")
    packages = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    installed = [path for package in packages for path in sorted(package.glob(f"*/lib/libnvrtc.so.{major}*"))]
    for path in [Path(f"libnvrtc.so.{major}"), *installed]:
        # NVRTC looks for its other half by name alone, which finds what is loaded already.
        other_halves = path.parent.glob("libnvrtc-builtins.so.*") if path.is_absolute() else []
        try:
            for other_half in other_halves:
                ctypes.CDLL(str(other_half))
            return [ctypes.CDLL(str(path))]
        except OSError:
            continue
    return []


def _run_time_compiler(library: ctypes.CDLL) -> Compiler:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return Compiler(f"NVRTC {major.value}.{minor.value}", lambda arch: _run_nvrtc(library, arch))


def _cached(compiler: Compiler, architecture: str) -> bytes:
    """What this compiler made before, or makes now."""
    name = f"kernels-{architecture}-{_key(compiler, architecture)}.cubin"
    try:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instant-surfaces" / name
        if path.is_file():
            return path.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        path = None
    log.warning("compiling CUDA kernels for %s with %s (once, a few seconds)", architecture, compiler.name)
    code = compiler.compile(architecture)
    try:
        if path is None:
            raise OSError("there is no home folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # In one step, so that others compiling at the same time never load half a file.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            (Path(folder) / name).write_bytes(code)
            os.replace(Path(folder) / name, path)
    except OSError as error:
        log.warning("compiled kernels cannot be kept (%s); set XDG_CACHE_HOME to a writable folder", error)
    return code


def _key(compiler: Compiler, architecture: str) -> str:
    digest = hashlib.sha256(repr([compiler.name, architecture, OPTIONS, STANDARD]).encode())
    for path in [SOURCE, *(HERE / name for name in HEADERS)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _run_nvrtc(library: ctypes.CDLL, architecture: str) -> bytes:
    texts = {**STANDARD, **{name: (HERE / name).read_text() for name in HEADERS}}
    names, bodies = _strings(texts.keys()), _strings(texts.values())
    program = ctypes.c_void_p()
    source = SOURCE.read_text().encode()
    made = library.nvrtcCreateProgram(ctypes.byref(program), source, b"cuda.cu", len(texts), bodies, names)
    if made != 0:
        raise BuildError(f"NVRTC failed: it takes no program, error {made}")
    try:
        options = _strings([f"--gpu-architecture={architecture}", *OPTIONS])
        if library.nvrtcCompileProgram(program, len(options), options) != 0:
            log_text = _read(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
            raise BuildError(f"NVRTC failed: {_first_error(log_text.decode(errors='replace'))}")
        return _read(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(size_of: Any, contents_of: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    contents = ctypes.create_string_buffer(size.value)
    contents_of(program, contents)
    return contents.raw


def _strings(texts: Any) -> ctypes.Array:
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def _run_nvcc(nvcc: str, architecture: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "kernels.cubin"
        command = [nvcc, *OPTIONS, f"-arch={architecture}", "-cubin", str(SOURCE), "-o", str(output)]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{nvcc} failed: {error}") from error
        if result.returncode or not output.is_file():
            raise BuildError(f"{nvcc} failed: {_first_error(result.stderr) or f'exit status {result.returncode}'}")
        return output.read_bytes()


def _nvcc_version(nvcc: str) -> str:
    try:
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=COMPILE_SECONDS).stdout
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    version = re.search(r"V[\d.]+", told)
    return version.group() if version else "of unknown version"


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.replace("\0", "").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[-1] if lines else "")
