"""Laws of the generated reference of configurations."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("config_reference", ROOT / "scripts" / "config_reference.py")
assert _spec is not None and _spec.loader is not None
config_reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(config_reference)


def test_the_reference_is_fresh() -> None:
    found = (ROOT / "configs" / "README.md").read_text()
    assert found == config_reference.reference(), "run python scripts/config_reference.py"
