"""Laws of the first command that a newcomer types; nothing is installed here."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scripts" / "bootstrap.py")
assert _spec is not None and _spec.loader is not None
bootstrap = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bootstrap)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run; an environment is made by writing its Python."""
    commands: list[list[str]] = []

    class Builder:
        def __init__(self, **_: Any) -> None: ...

        def create(self, folder: Path) -> None:
            (folder / "bin").mkdir(parents=True, exist_ok=True)
            (folder / "bin" / "python").write_text("")

    def run(command: list[str], **_: Any) -> "subprocess.CompletedProcess[bytes]":
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bootstrap.venv, "EnvBuilder", Builder)
    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    monkeypatch.setattr(bootstrap.os, "name", "posix")
    monkeypatch.setenv("CXX", sys.executable)
    return commands


def test_the_second_call_installs_nothing(ran: list[list[str]], tmp_path: Path) -> None:
    for _ in range(2):
        assert bootstrap.main(["--venv", str(tmp_path), "demo", "trainer.max_steps=3"]) == 0
    install, first, second = ran
    assert install[1:4] == ["-m", "pip", "install"]
    assert first == second
    assert first[1:] == ["launch.py", "--config", "configs/demo.yaml", "--train", "trainer.max_steps=3"]


def test_an_environment_for_tests_serves_the_demo(ran: list[list[str]], tmp_path: Path) -> None:
    assert bootstrap.main(["--venv", str(tmp_path), "test", "-x"]) == 0
    assert bootstrap.main(["--venv", str(tmp_path), "demo"]) == 0
    assert [command[1:3] for command in ran] == [["-m", "pip"], ["-m", "pytest"], ["launch.py", "--config"]]
    assert ran[1][-1] == "-x"


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (2, 2), (64, bootstrap.MOST_WORKERS)])
def test_tests_run_side_by_side_on_the_cores(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int | None, workers: int
) -> None:
    monkeypatch.setattr(bootstrap.os, "cpu_count", lambda: cores)
    assert bootstrap.main(["--venv", str(tmp_path), "test"]) == 0
    assert ran[-1][3] == f"--numprocesses={workers}"


def test_changed_requirements_are_installed(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.prepare(tmp_path, is_development=False)
    monkeypatch.setattr(bootstrap, "fingerprint", lambda wanted: "another")
    bootstrap.prepare(tmp_path, is_development=False)
    assert [command[2:4] for command in ran] == [["pip", "install"]] * 2


def test_without_a_compiler_pip_brings_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    assert bootstrap.requirements(is_development=False)[-1] == "ziglang"
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: "/usr/bin/c++" if name == "c++" else None)
    assert "ziglang" not in bootstrap.requirements(is_development=False)


def test_a_place_where_no_environment_can_be_is_named(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "folder", target_is_directory=True)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit, match="link could not be made .*Delete it"):
        bootstrap.prepare(link, is_development=False)


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
def test_other_pythons_are_refused(version: tuple[int, int]) -> None:
    with pytest.raises(SystemExit, match="run the script with one of 3.10 to 3.13"):
        bootstrap.check_version(version)


def test_a_failing_command_ends_the_check(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.prepare(tmp_path, is_development=True)
    ran.clear()

    def fail(command: list[str], **_: Any) -> "subprocess.CompletedProcess[bytes]":
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(bootstrap.subprocess, "run", fail)
    assert bootstrap.main(["--venv", str(tmp_path), "check"]) == 3
    assert [command[2] for command in ran] == ["ruff"]


def test_shell_script_of_the_continuous_integration_is_well_formed() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
