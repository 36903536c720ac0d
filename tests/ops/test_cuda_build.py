"""Finding a CUDA compiler, building once, what comes out of it, and what is said when that fails."""

import logging
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from models import ops
from models.ops import cuda, dispatch, nvrtc
from tests.ops.gpu import play
from utils.registry import ConfigError

# Writes which architecture it was asked for, and counts its calls.
NVCC = """#!/bin/sh
case "$1" in --version) echo 'Cuda compilation tools, release 13.0, V13.0.88'; exit;; esac
echo call >> {folder}/calls
echo "code for $2"
while [ "$1" != -o ]; do [ "${{1#-arch=}}" != "$1" ] && arch=${{1#-arch=}}; shift; done
echo "code for $arch" > "$2"
"""


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine with an empty cache and no CUDA compiler on it."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(nvrtc, "_open_libraries", lambda: [])
    return tmp_path


def give(machine: Path, script: str) -> None:
    nvcc = machine / "bin" / "nvcc"
    nvcc.write_text(script.format(folder=machine))
    nvcc.chmod(0o755)


def n_calls(machine: Path) -> int:
    return len((machine / "calls").read_text().splitlines())


def test_without_a_compiler_the_reason_names_the_remedy(bare):
    with pytest.raises(nvrtc.BuildError, match="there is no CUDA compiler; `pip install torch` for CUDA brings NVRTC"):
        nvrtc.compile_kernels("sm_90")


@pytest.mark.parametrize("script", ["exit 1", "echo 'cuda.cu:1: error: no such thing' >&2; exit 1", "exit 0"])
def test_a_broken_compiler_is_reported_with_its_error(bare, script):
    give(bare, f"#!/bin/sh\n{script}\n")
    with pytest.raises(nvrtc.BuildError) as caught:
        nvrtc.compile_kernels("sm_90")
    assert "nvcc failed: " in str(caught.value) and "\n" not in str(caught.value)
    assert ("no such thing" in str(caught.value)) == ("such" in script)
    assert list(bare.rglob("*.cubin")) == []


def test_the_next_compiler_stands_in_for_one_that_fails(bare, monkeypatch):
    def fail(architecture: str) -> bytes:
        raise nvrtc.BuildError("NVRTC failed: invalid value for --gpu-architecture")

    working = nvrtc.Compiler("other", lambda architecture: architecture.encode())
    monkeypatch.setattr(nvrtc, "compilers", lambda: [nvrtc.Compiler("NVRTC", fail), working])
    assert nvrtc.compile_kernels("sm_90") == b"sm_90"


def test_kernels_are_built_once_for_each_architecture_and_said_to_be(bare, caplog):
    give(bare, NVCC)
    for _ in range(2):
        assert nvrtc.compile_kernels("sm_90") == b"code for sm_90\n"
    assert nvrtc.compile_kernels("sm_80") == b"code for sm_80\n"
    assert n_calls(bare) == 2
    assert [record.message.split(" with ")[0] for record in caplog.records] == [
        "compiling CUDA kernels for sm_90",
        "compiling CUDA kernels for sm_80",
    ]


def test_other_sources_options_and_versions_are_other_kernels(bare, monkeypatch):
    give(bare, NVCC)
    nvrtc.compile_kernels("sm_90")
    give(bare, NVCC.replace("V13.0.88", "V13.1.2"))
    nvrtc.compile_kernels("sm_90")
    monkeypatch.setattr(nvrtc, "OPTIONS", [*nvrtc.OPTIONS, "-DLANES=1"])
    nvrtc.compile_kernels("sm_90")
    assert n_calls(bare) == 3


def test_a_cache_that_cannot_be_written_costs_a_message_but_not_the_kernels(bare, monkeypatch, caplog):
    give(bare, NVCC)
    (bare / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "file"))
    assert nvrtc.compile_kernels("sm_90") == b"code for sm_90\n"
    assert "XDG_CACHE_HOME" in caplog.records[-1].message


def test_those_who_compile_at_once_do_not_disturb_each_other(bare):
    give(bare, NVCC)
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(nvrtc.compile_kernels, ["sm_90"] * 4))
    assert set(codes) == {b"code for sm_90\n"}
    kept = list((bare / "cache" / "instant-surfaces").iterdir())
    assert len(kept) == 1 and kept[0].suffix == ".cubin"


@pytest.mark.parametrize("compiler", nvrtc.compilers(), ids=lambda compiler: compiler.name.split("/")[-1])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_the_sources_compile(compiler, architecture):
    code = compiler.compile(architecture)
    assert code.startswith(b"\x7fELF") and b"encode_jacobian_2" in code and b"alpha_gradients" in code


@pytest.fixture
def nvcc():
    names = [compiler.name for compiler in nvrtc.compilers() if "nvcc" in compiler.name]
    if not names:
        pytest.skip("no nvcc")
    return names[0].split()[0]


def test_no_kernel_spills_registers(nvcc, tmp_path):
    command = [nvcc, *nvrtc.OPTIONS, "-arch=sm_90", "-cubin", "-Xptxas", "-v", str(nvrtc.SOURCE)]
    told = subprocess.run([*command, "-o", str(tmp_path / "code")], capture_output=True, text=True, check=True).stderr
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", told)
    assert len(frames) == told.count("Compiling entry function") > 20
    assert set(frames) == {("0", "0", "0")}


@pytest.mark.parametrize(("architecture", "widths"), [("sm_80", {""}), ("sm_90", {"", ".v2", ".v4"})])
def test_an_entry_is_read_and_where_possible_added_at_once(nvcc, tmp_path, architecture, widths):
    target = tmp_path / "kernels.ptx"
    command = [nvcc, *nvrtc.OPTIONS, f"-arch={architecture}", "-ptx", str(nvrtc.SOURCE), "-o", str(target)]
    subprocess.run(command, capture_output=True, check=True)
    text = target.read_text()
    assert set(re.findall(r"atom\.global\.add(\.v\d)?\.f32", text)) == widths
    assert {"v2", "v4"} <= set(re.findall(r"ld\.global\.nc\.(v\d)\.f32", text))
    assert "ld.global.nc.u8" not in text  # numbers are never put together from bytes


def test_without_kernels_a_gpu_runs_the_reference_and_that_is_said_once(monkeypatch, caplog):
    dispatch.tell_once.cache_clear()
    play(monkeypatch, None)  # type: ignore[arg-type]

    def fail(architecture: str) -> bytes:
        raise nvrtc.BuildError("there is no CUDA compiler; do this")

    monkeypatch.setattr(nvrtc, "compile_kernels", fail)
    assert ops.spherical_harmonics(torch.eye(3), 2).shape == (4, 3)
    assert ops.mlp(torch.eye(3), [torch.eye(3)], [None], "relu").shape == (3, 3)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "everything runs as plain torch, which is slower: there is no CUDA compiler; do this"
    ]
    with pytest.raises(ConfigError, match="backend of mlp is native, but there is no CUDA compiler; do this"):
        ops.mlp(torch.eye(3), [torch.eye(3)], [None], "relu", backend="native")


def test_a_missing_driver_is_a_reason_and_no_crash(monkeypatch):
    play(monkeypatch, None)  # type: ignore[arg-type]

    def fail():
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(cuda, "_driver", fail)
    assert "libcuda" in cuda.obstacle(torch.device("cpu"))
