"""Laws of gains: known ones are recovered, and nothing but photographs is touched by them."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from datasets import datasets
from datasets.module import SceneData
from datasets.synthetic import Synthetic
from datasets.views import Views
from systems import systems
from systems.experiment import Experiment
from systems.exposure import Gain
from systems.trainer import make_trainer
from tests.moved import rendered as photographs
from tests.test_training import ROOT, tiny
from utils.config import load, parse
from utils.registry import ConfigError
from utils.run_directory import add_run_keys
from utils.types import Rays, Rendered

N = 6
LOG_GAIN = 0.3 * torch.tensor([[1, 1, 1], [-1, -1, -1], [1, 0, -1], [-1, 0, 1], [0.5, 0, 0], [-0.5, 0, 0]])


@datasets.register("exposed-data")
class Exposed:
    """The synthetic data set; photographs to train on are darkened and tinted, held-out ones are not."""

    @dataclass
    class Config(Synthetic.Config):
        """The same keys."""

    def __init__(self, config: "Exposed.Config"):
        self.config = config

    def views(self, split: str) -> Views:
        options = {key: getattr(self.config, key) for key in ("n_train_views", "n_test_views", "size")}
        views = photographs(split, samples_per_pixel=4, **options)
        color = 0.6 * views.color
        if split == "train":
            color = color * LOG_GAIN.exp().repeat_interleave(views.offsets.diff(), dim=0)
        return replace(views, color=color.round().byte())


def test_gains_have_the_geometric_mean_one_whatever_is_learnt():
    gain = Gain(Gain.Config(rows=10))
    torch.testing.assert_close(gain.gains(4), torch.ones(4, 3))
    torch.nn.init.normal_(gain.log_gain)
    torch.testing.assert_close(gain.gains(4).log().mean(0), torch.zeros(3), rtol=0, atol=1e-6)


def test_more_photographs_than_rows_are_an_error():
    with pytest.raises(ConfigError, match="system.exposure.rows is 2, but there are 3 photographs"):
        Gain(Gain.Config(rows=2)).gains(3)


@pytest.mark.parametrize("is_cut_out", [True, False])
def test_what_is_behind_a_cut_out_object_is_no_camera_s(is_cut_out: bool):
    gain = Gain(Gain.Config())
    with torch.no_grad():
        gain.log_gain[:2] = torch.tensor([[math.log(2.0)], [-math.log(2.0)]])
    backdrop, opacity = torch.tensor([[0.2, 0.4, 0.6]]).expand(2, 3), torch.tensor([0.75, 0.0])
    foreground = torch.tensor([[0.3, 0.1, 0.2], [0.0, 0.0, 0.0]])
    color = foreground + (1 - opacity)[:, None] * backdrop
    row = torch.tensor([0, 1])
    rays = Rays(backdrop, backdrop, backdrop, row, row[:, None].expand(2, 2))
    views = photographs("train", n_train_views=2, n_test_views=1, size=4, samples_per_pixel=1)
    seen = gain(Rendered(color, opacity, opacity), rays, replace(views, apply_mask=is_cut_out))
    factor = torch.tensor([[2.0], [0.5]])
    expected = factor * foreground + (1 - opacity)[:, None] * backdrop if is_cut_out else factor * color
    torch.testing.assert_close(seen.color, expected)
    assert torch.equal(seen.opacity, opacity)


def test_passes_before_the_last_are_exposed_alike():
    gain, rows = Gain(Gain.Config()), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        gain.log_gain[0] = math.log(4.0)  # less the mean of two: a factor of 2
    one = torch.ones(1, 3)
    coarse = Rendered(0.1 * one, torch.ones(1), torch.ones(1))
    views = photographs("train", n_train_views=2, n_test_views=1, size=4, samples_per_pixel=1)
    rays = Rays(one, one, one, rows, torch.zeros(1, 2, dtype=torch.int64))
    seen = gain(Rendered(0.3 * one, torch.ones(1), torch.ones(1), coarse=coarse), rays, views)
    torch.testing.assert_close(seen.color, 0.6 * one)
    torch.testing.assert_close(seen.coarse.color, 0.2 * one)


def trained(folder, *words: str):
    """System, trainer and data after a short training on exposed photographs."""
    words = ("trainer.limit_val_batches=2", *words)
    overrides = [*tiny("dataset.name=exposed-data", "trainer.max_steps=250", "trainer.log_every_n_steps=50"), *words]
    config = load(ROOT / "configs/demo.yaml", overrides)
    add_run_keys(config, {"exp_dir": str(folder), "train": True, "resume": None, "resume_weights_only": False})
    experiment = parse(Experiment, config)
    system = systems.make(experiment.system, experiment)
    data = SceneData(datasets.make(experiment.dataset))
    trainer = make_trainer(experiment, "none", folder / "runs")
    trainer.fit(system, data)
    return system, trainer, data


def test_known_gains_are_found_and_held_out_views_gain_by_it(tmp_path, monkeypatch):
    plain, trainer, data = trained(tmp_path / "plain")
    without = trainer.validate(plain, data, verbose=False)[0]["val/psnr"]
    system, trainer, data = trained(tmp_path / "gain", "system.exposure.name=gain")
    found = system.exposure.gains(N).detach().log()
    expected = LOG_GAIN - LOG_GAIN.mean(0)
    error = (found - expected).abs()
    print(error.max(), error.mean(), without)
    assert error.mean() < 0.05 and error.max() < 0.15
    # It is saved, and scores do not know it.
    saved = torch.load(next((tmp_path / "gain").rglob("last.ckpt")), weights_only=True)["state_dict"]
    assert torch.equal(saved["exposure.log_gain"], system.exposure.log_gain.detach())
    psnr = trainer.validate(system, data, verbose=False)[0]["val/psnr"]
    monkeypatch.setattr(system.exposure, "forward", lambda *_: pytest.fail("a score asked for gains"))
    assert trainer.validate(system, data, verbose=False)[0]["val/psnr"] == psnr > without
    print(psnr)
