"""From a fresh checkout to a running program with one command and nothing but Python.

    python scripts/bootstrap.py demo     train the demo; key=value overrides may follow
    python scripts/bootstrap.py test     run the tests; arguments of pytest may follow
    python scripts/bootstrap.py check    what must pass before merging: lint, format, types, tests

Packages go into a virtual environment (`.venv`, or --venv DIR), once: the second call starts at once unless the
requirements have changed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = (3, 10), (3, 13)
MOST_WORKERS = 4  # processes that test side by side; each takes up to 2 GB


def check_version(version: "tuple[int, ...]") -> None:
    """Stops where a package of the requirements has no build for this Python."""
    if not OLDEST <= version <= NEWEST:
        known = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
        sys.exit(f"error: this is Python {'.'.join(map(str, version))}; run the script with one of {known}")


# Here already, because the annotations below are errors to older Pythons.
check_version(sys.version_info[:2])


def requirements(is_development: bool) -> list[str]:
    """Arguments of `pip install`; without a C++ compiler, one that pip can install compiles the kernels."""
    words = ["-r", str(ROOT / ("requirements-dev.txt" if is_development else "requirements.txt"))]
    has_compiler = any(shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name)
    return words if has_compiler else [*words, "ziglang"]


def fingerprint(wanted: list[str]) -> str:
    """Changes with the requirements and with the Python that they were installed for."""
    files = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt"))
    return hashlib.sha256(f"{sys.version}\n{wanted}\n{files}".encode()).hexdigest()


def prepare(folder: Path, is_development: bool) -> Path:
    """Makes or refreshes the virtual environment; returns its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "requirements.sha256"
    wanted = requirements(is_development)
    # An environment for development serves everything else, too.
    good = {fingerprint(wanted), fingerprint(requirements(is_development=True))}
    if python.is_file() and stamp.is_file() and stamp.read_text() in good:
        return python
    print(f"installing packages into {folder} (once; several minutes)", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, clear=not python.is_file()).create(folder)
        subprocess.run([str(python), "-m", "pip", "install", *wanted], check=True)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:  # ValueError: a link, or a file
        sys.exit(f"error: {folder} could not be made ({error}); the lines above say why. Delete it to start anew")
    stamp.write_text(fingerprint(wanted))
    return python


def commands(action: str, python: Path, rest: list[str]) -> list[list[str]]:
    """What an action runs, one command after another until one fails."""
    word = str(python)
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    tests = [word, "-m", "pytest", f"--numprocesses={workers}", "--dist=worksteal", *rest]
    return {
        "demo": [[word, "launch.py", "--config", "configs/demo.yaml", "--train", *rest]],
        "test": [tests],
        "check": [
            [word, "-m", "ruff", "check", "."],
            [word, "-m", "ruff", "format", "--check", "."],
            [word, "-m", "basedpyright", "--pythonpath", word],
            tests,
        ],
    }[action]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", metavar="DIR", help="default: .venv")
    parser.add_argument("action", choices=("demo", "test", "check"))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="passed on")
    arguments = parser.parse_args(words)
    python = prepare(arguments.venv.absolute(), is_development=arguments.action != "demo")
    for command in commands(arguments.action, python, arguments.rest):
        print("$", *command[1:], flush=True)
        code = subprocess.run(command, cwd=ROOT).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
