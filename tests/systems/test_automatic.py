"""What the data decides when a configuration says `auto`."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from systems.automatic import automatic_keys, decided, settle
from systems.experiment import Experiment
from tests.moved import Moved
from utils.config import parse, read, resolve
from utils.registry import ConfigError
from utils.run_directory import add_run_keys

ROOT = Path(__file__).parents[2]
DATA = {"name": "moved-data", "n_train_views": 8, "n_test_views": 1, "size": 24, "samples_per_pixel": 4}


def demo(*words: str, **data) -> DictConfig:
    config = read(ROOT / "configs/demo.yaml", words)
    OmegaConf.update(config, "dataset", {**DATA, **data}, merge=False)
    Moved.read.clear()
    return config


def finish(config: DictConfig) -> Experiment:
    resolve(config)
    add_run_keys(config, {"exp_dir": "exp", "train": False})
    return parse(Experiment, config)


def test_numbers_stay_and_read_nothing() -> None:
    experiment, data = settle(demo(), finish)
    assert experiment.model.radius == 1.25 and Moved.read == []
    assert len(data.views("train")) == 8


def test_the_box_holds_what_the_masks_show_and_everything_refers_to_it() -> None:
    config = demo("model.radius=auto", "model.geometry.isosurface.threshold=${mul:2,${model.radius}}")
    assert automatic_keys(config) == ["model.radius"]
    experiment, data = settle(config, finish)
    radius = experiment.model.radius
    # The knot reaches 1.2 along its widest axis; a hull of few small masks is larger.
    assert 1.1 < radius < 2.5
    assert config.model.radius == config.model.geometry.radius == experiment.model.geometry.radius == radius
    assert experiment.model.geometry.isosurface.threshold == 2 * radius
    assert automatic_keys(config) == []
    data.views("train")
    assert Moved.read == ["train"]


@pytest.mark.parametrize(("has_mask", "apply_mask"), [(True, True), (False, True), (True, False)])
def test_a_background_is_learned_where_photographs_show_one(
    has_mask: bool, apply_mask: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config = read(ROOT / "configs/nerf-blender-fast.yaml", ["dataset.scene=x", "model.learned_background=auto"])
    OmegaConf.update(config, "dataset", {**DATA, "has_mask": has_mask, "apply_mask": apply_mask}, merge=False)
    config.name = "x"
    experiment, _ = settle(config, finish)
    is_learned = not (has_mask and apply_mask)
    assert experiment.model.learned_background is is_learned
    assert f"model.learned_background is {str(is_learned).lower()}: " in caplog.text


@pytest.mark.parametrize("has_mask", [True, False])
def test_what_is_not_learned_has_no_learning_rate(has_mask: bool) -> None:
    config = read(ROOT / "configs/neus-transforms.yaml", ["dataset.root_dir=x"])
    OmegaConf.update(config, "dataset", {**DATA, "has_mask": has_mask}, merge=False)
    config.name = "x"
    experiment, _ = settle(config, finish)
    groups = {"geometry", "texture", "variance"} | (set() if has_mask else {"geometry_bg", "texture_bg"})
    assert experiment.system.optimizer.params.keys() == groups


def test_mistakes_elsewhere_are_heard_before_the_data_is_read() -> None:
    with pytest.raises(ConfigError, match="model.num_samples_per_rey: unknown key"):
        settle(demo("model.radius=auto", "model.num_samples_per_rey=3"), finish)
    assert Moved.read == []


def test_the_same_data_gives_the_same_numbers() -> None:
    radii = []
    for seed in range(2):
        torch.manual_seed(seed)
        radii.append(settle(demo("model.radius=auto"), finish)[0].model.radius)
    assert radii[0] == radii[1]


def test_decided_values_leave_the_original_alone() -> None:
    config = demo("model.radius=auto")
    assert decided(config, {"model.radius": 2.0}).model.radius == 2.0
    assert config.model.radius == "auto"
