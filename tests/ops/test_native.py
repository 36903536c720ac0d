"""Finding a compiler, building once, and what is said when that fails."""

import importlib.util
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import ops
from models.ops import dispatch, native
from utils.registry import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine with an empty cache and no compiler on it."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    return tmp_path


@pytest.fixture
def compiler(bare, monkeypatch):
    """That machine with the compiler of this one, told not to optimise."""
    monkeypatch.setenv("PATH", os.defpath)
    if not native._compilers():
        pytest.skip("no system compiler")
    monkeypatch.setattr(native, "FLAGS", [*native.FLAGS, "-O0"])
    return bare


def cached(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.so"))


def test_without_a_compiler_the_reason_names_the_remedy(bare):
    library, reason = native.load()
    assert library is None and reason == ("there is no C++ compiler; `pip install ziglang` brings one that works")


@pytest.mark.parametrize("script", ["exit 1", "echo 'cpu.cpp:1: error: no such thing' >&2; exit 1", "exit 0"])
def test_a_broken_compiler_is_reported_with_its_error(bare, script):
    (bare / "bin").mkdir()
    (bare / "bin" / "c++").write_text(f"#!/bin/sh\n{script}\n")
    (bare / "bin" / "c++").chmod(0o755)
    library, reason = native.load()
    assert library is None and "c++ failed: " in reason and "pip install ziglang" in reason and "\n" not in reason
    assert ("no such thing" in reason) == ("such" in script)
    assert cached(bare) == []


def test_a_compiler_that_writes_no_library_is_no_success(bare):
    (bare / "bin").mkdir()
    (bare / "bin" / "c++").write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done; echo nonsense > "$2"\n')
    (bare / "bin" / "c++").chmod(0o755)
    library, reason = native.load()
    assert library is None and "does not load" in reason


def test_the_named_compiler_comes_first_and_the_others_stand_in_for_it(compiler, monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler --with-options")
    assert native._compilers()[0] == ["/no/such/compiler", "--with-options"]
    library, reason = native.load()
    assert library is not None and reason == ""


def test_kernels_are_built_once_and_said_to_be(compiler, caplog):
    assert native.load()[0] is not None
    assert [record.message.split(" with ")[0] for record in caplog.records] == ["compiling kernels"]
    assert len(cached(compiler)) == 1
    caplog.clear()
    assert native.load()[0] is not None
    assert caplog.records == [] and len(cached(compiler)) == 1


def test_a_cache_that_cannot_be_written_costs_a_message_but_not_the_kernels(compiler, monkeypatch, caplog):
    (compiler / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(compiler / "file"))
    assert native.load()[0] is not None
    assert "XDG_CACHE_HOME" in caplog.records[-1].message


def test_processes_that_compile_at_once_do_not_disturb_each_other(compiler):
    code = "from models.ops import native; native.FLAGS.append('-O0'); assert native.load()[0], native.load()[1]"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=compiler) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(cached(compiler)) == 1
    assert [path.name for path in (compiler / "cache" / "instant-surfaces").iterdir()] == [cached(compiler)[0].name]


@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_every_number_of_lanes_computes_the_same(compiler, monkeypatch, lanes):
    monkeypatch.setattr(native, "FLAGS", [*native.FLAGS, f"-DLANES={lanes}", "-Wno-psabi"])
    library, reason = native.load()
    assert library is not None, reason
    monkeypatch.setattr(native, "_loaded", lambda: (library, ""))
    torch.manual_seed(0)
    layout = ops.GridLayout(4, 2, 8, 4, 1.5)
    table, x = torch.rand(layout.n_entries, 2).requires_grad_(), torch.rand(3, 101)
    weights = [torch.randn(20, 11).requires_grad_(), torch.randn(3, 20).requires_grad_()]
    results = []
    for backend in ("native", "reference"):
        outputs, gradient = ops.sdf_field(x, table, layout, weights, [None, None], "softplus", backend=backend)
        grads = torch.autograd.grad(outputs.sum() + gradient.square().sum(), [table, *weights])
        results.append([outputs, gradient, *grads])
    for actual, expected in zip(*[[r.detach() for r in run] for run in results], strict=True):
        # float32 against float32, with a sharp softplus between them
        assert float((actual - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_threads_are_started_where_torch_has_no_openmp_to_share(compiler, monkeypatch):
    monkeypatch.setattr(native, "_share_threads", lambda library: None)
    library, _ = native.load()
    monkeypatch.setattr(native, "_loaded", lambda: (library, ""))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    d = torch.nn.functional.normalize(torch.rand(3, 20001), dim=0)
    actual, expected = (ops.spherical_harmonics(d, 4, backend) for backend in ("native", "reference"))
    assert torch.allclose(actual, expected, atol=1e-6)


def test_without_kernels_work_goes_on_and_is_said_to_be_slower_once(monkeypatch, caplog):
    dispatch.tell_once.cache_clear()
    monkeypatch.setattr(native, "obstacle", lambda: "there is no C++ compiler; do this")
    assert ops.spherical_harmonics(torch.eye(3), 2).shape == (4, 3)
    assert ops.mlp(torch.eye(3), [torch.eye(3)], [None], "relu").shape == (3, 3)
    assert [record.message for record in caplog.records] == [
        "everything runs as plain torch, which is slower: there is no C++ compiler; do this"
    ]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_backend_that_is_named_is_used_or_an_error():
    reason = "backend of mlp is native, but the kernels take float32 and were given float64; use backend auto"
    with pytest.raises(ConfigError, match=reason):
        dispatch.uses_native("mlp", "native", [torch.eye(3).double()])
    with pytest.raises((ConfigError, TypeError), match="cuda"):  # TypeError where signatures are checked
        dispatch.uses_native("mlp", "cuda", [torch.eye(3)])


def test_networks_beyond_the_kernels_run_as_the_reference():
    weights = [torch.randn(4, 3), *(torch.randn(4, 4) for _ in range(6))]
    x = torch.randn(3, 10)
    deep = ops.mlp(x, weights, [None] * 7, "relu")
    assert torch.equal(deep, ops.mlp(x, weights, [None] * 7, "relu", backend="reference"))
    with pytest.raises(ConfigError, match="at most 4 hidden layers and were given 6"):
        ops.mlp(x, weights, [None] * 7, "relu", backend="native")
    with pytest.raises(ConfigError, match="at most 256 neurons a layer and were given 300"):
        ops.mlp(x, [torch.randn(300, 3)], [None], "relu", backend="native")


def test_layers_that_do_not_chain_are_named():
    with pytest.raises(ValueError, match=r"layer 1 has weight \[2, 5\] and bias None, expected 4 inputs"):
        ops.mlp(torch.randn(3, 10), [torch.randn(4, 3), torch.randn(2, 5)], [None, None], "relu")


def test_arrays_that_a_kernel_would_overrun_are_refused():
    with pytest.raises(ValueError, match=r"march: near is \[2\], expected \[3\]"):
        dispatch.check_shapes("march", far=(torch.zeros(3), (3,)), near=(torch.zeros(2), (3,)))


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="needs ziglang, which compiles for others")
@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "aarch64-macos"])
def test_the_kernels_compile_for_arm_into_vector_instructions(target, tmp_path):
    """NEON has four lanes; nothing of this has run on such a machine."""
    assembly = tmp_path / "kernels.s"
    flags = [flag for flag in native.FLAGS if flag not in ("-shared", "-pthread")]
    command = [sys.executable, "-m", "ziglang", "c++", "-nostdlib++", "-target", target, "-mcpu=apple_m1", *flags]
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(tmp_path), "ZIG_LOCAL_CACHE_DIR": str(tmp_path)}
    subprocess.run(
        [*command, "-S", str(native.SOURCE), "-o", str(assembly)],
        check=True,
        capture_output=True,
        env=os.environ | caches,
    )
    assert re.search(r"\bfmla(\.4s)?\s+v\d+", assembly.read_text(errors="replace"))
