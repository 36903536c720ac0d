"""Every test runs with the shapes of signatures checked: the hook must be there before the packages are imported."""

import os
from collections.abc import Iterator

import pytest
from jaxtyping import install_import_hook

# Threads that spin while they wait take the cores from whatever else runs beside the tests, and it from them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Workers of pytest-xdist share the cores.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

# The numeric tower is the standard reading of annotations: an int is a float.
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook(["datasets", "models", "systems", "utils"], _CHECKER)


def pytest_sessionstart() -> None:
    """Finds the GPUs, before a test of the command line hides them from all that come after it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.init()


@pytest.fixture
def few_points(monkeypatch):
    """Whole runs are tested, not how well their meshes are measured, which would take most of the time."""
    from datasets import knot
    from systems import geometry_error

    monkeypatch.setattr(geometry_error, "N_POINTS", 1000)
    monkeypatch.setattr(knot, "N_CANDIDATES", 1000)


@pytest.fixture(autouse=True)
def _nothing_was_said_before():
    """Notices are said once per process; each test is to hear its own."""
    from utils.notice import notice

    notice.cache_clear()


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """The command line says in the environment which devices it wants, and processes that it starts read it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
