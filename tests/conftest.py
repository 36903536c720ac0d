"""Every test runs with the shapes of signatures checked: the hook must be there before the packages are imported."""

import os

import pytest
from jaxtyping import install_import_hook

# Threads that spin while they wait take the cores from whatever else runs beside the tests, and it from them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The numeric tower is the standard reading of annotations: an int is a float.
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook(["datasets", "models", "systems", "utils"], _CHECKER)


@pytest.fixture(autouse=True)
def _nothing_was_said_before():
    """Notices are said once per process; each test is to hear its own."""
    from utils.notice import notice

    notice.cache_clear()
