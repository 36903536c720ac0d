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


@pytest.mark.parametrize(
    "page", ["README.md", "configs/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_and_pictures_of_every_page_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text())
    lost = []
    for target in targets:
        if ":" in target:
            continue
        name, _, heading = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (heading and heading not in headings(path)):
            lost.append(target)
    assert lost == []


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them of its headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_configuration_is_named():
    missing = [path.stem for path in (ROOT / "configs").glob("*.yaml") if f"`{path.stem}`" not in README]
    assert missing == []
