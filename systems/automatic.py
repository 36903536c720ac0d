"""`auto` in a configuration: values that the data decides before the model is built.

Interpolations such as `${model.radius}` may refer to them, so they are set before interpolations are resolved. The
run's parsed.yaml holds what was decided, and evaluating its checkpoint decides nothing.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from datasets import datasets
from datasets.module import SceneData
from datasets.region import region_of_interest
from datasets.views import Views
from systems.experiment import Experiment
from utils.notice import notice

STAND_INS: dict[str, Any] = {"model.radius": 1.0, "model.learned_background": False}
"""Keys that may be `auto`, and values with which a configuration is checked before the data has decided."""


def settle(config: DictConfig, finish: Callable[[DictConfig], Experiment]) -> tuple[Experiment, SceneData]:
    """An experiment without open questions, and its data, which is read only where there were any.

    Args:
        config: interpolations unresolved; what was `auto` is replaced.
        finish: resolves a configuration in place and parses it.
    """
    asked = automatic_keys(config)
    if not asked:
        experiment = finish(config)
        return experiment, SceneData(datasets.make(experiment.dataset))
    # Mistakes elsewhere are to be heard before the data is read.
    draft = finish(decided(config, {key: STAND_INS[key] for key in asked}))
    data = SceneData(datasets.make(draft.dataset))
    views = data.views("train")
    for key in asked:
        OmegaConf.update(config, key, _DECISIONS[key](views))
    if "model.learned_background" in asked and not config.model.learned_background:
        _forget_background(config)
    return finish(config), data


def automatic_keys(config: DictConfig) -> list[str]:
    """Keys of a configuration that are left to the data."""
    model = OmegaConf.to_container(config, resolve=False).get("model")  # type: ignore[union-attr]
    given = model if isinstance(model, dict) else {}
    return [key for key in STAND_INS if given.get(key.removeprefix("model.")) == "auto"]


def decided(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    """A copy of a configuration with other values of some keys."""
    changed = copy.deepcopy(config)
    for key, value in values.items():
        OmegaConf.update(changed, key, value)
    return changed


def _forget_background(config: DictConfig) -> None:
    """Removes the learning rates of what is not going to be learned."""
    groups = OmegaConf.select(config, "system.optimizer.params") or {}
    for name in [name for name in groups if name.endswith("_bg")]:
        del groups[name]


def _radius(views: Views) -> float:
    """Half side of the smallest box around the origin that holds the region of interest, world units."""
    center, radius = region_of_interest(views)
    reach = float(f"{center.abs().max().item() + radius:.4g}")
    notice(f"model.radius is {reach:g}: the region of interest reaches that far from the origin")
    return reach


def _learned_background(views: Views) -> bool:
    """Whether the photographs show anything but the object."""
    is_hidden = views.has_mask and views.apply_mask
    why = "masks hide it" if is_hidden else "no masks hide it"
    notice(f"model.learned_background is {str(not is_hidden).lower()}: {why}")
    return not is_hidden


_DECISIONS: dict[str, Callable[[Views], Any]] = {
    "model.radius": _radius,
    "model.learned_background": _learned_background,
}
