"""What the README promises holds."""

import re
from pathlib import Path

import pytest
import torch

import launch
from systems import losses
from systems.loss_functions import LossSet
from utils.schedule import Schedule
from utils.types import Rendered, Target

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("few_points")
README = (ROOT / "README.md").read_text()


def test_the_part_of_ones_own_works_as_written(tmp_path):
    code = re.search(r"```python\n# my_parts.py\n(.*?)```", README, re.DOTALL)
    assert code
    plugin = tmp_path / "my_parts.py"
    plugin.write_text(code[1])
    launch.import_plugins([str(plugin)])
    try:
        weights = {"lambda_rgb_charbonnier": Schedule.constant(1.0), "charbonnier_width": Schedule.constant(0.3)}
        seen = Rendered(torch.tensor([[0.5, 0.5, 0.5]]), torch.ones(1), torch.ones(1))
        target = Target(torch.tensor([[0.1, 0.5, 0.5]]))
        # sqrt(0.4^2 + 0.3^2) - 0.3 = 0.2 in one channel, 0 in the others.
        total = LossSet(weights, frozenset())(seen, target, 0, 0).total
        assert total.item() == pytest.approx(0.2 / 3, rel=1e-5)
    finally:
        losses._parts.pop("rgb_charbonnier")


def test_files_that_the_readme_names_exist():
    paths = re.findall(r"\]\(([^)#:]+)\)|python3? (scripts/\S+\.py)|--config (configs/\S+\.yaml)", README)
    named = {path for group in paths for path in group if path}
    assert len(named) > 5
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_configuration_is_named():
    missing = [path.stem for path in (ROOT / "configs").glob("*.yaml") if f"`{path.stem}`" not in README]
    assert missing == []
