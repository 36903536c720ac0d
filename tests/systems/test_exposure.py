"""Laws of gains: known ones are found, and nothing but photographs is touched by them."""

import math
from dataclasses import replace

import pytest
import torch

from datasets import datasets
from datasets.module import SceneData
from systems import systems
from systems.experiment import Experiment
from systems.exposure import Gain
from systems.loss_functions import rgb_mse
from systems.trainer import make_trainer, read_checkpoint
from tests.moved import rendered
from tests.test_training import ROOT, tiny
from utils.config import load, parse
from utils.registry import ConfigError
from utils.run_directory import add_run_keys
from utils.types import Rays, Rendered, Target

N = 6
LOG_GAIN = 0.3 * torch.tensor([[1, 1, 1], [-1, -1, -1], [1, 0, -1], [-1, 0, 1], [0.5, 0, 0], [-0.5, 0, 0]])


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
    views = rendered("train", n_train_views=2, n_test_views=1, size=4, samples_per_pixel=1)
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
    views = rendered("train", n_train_views=2, n_test_views=1, size=4, samples_per_pixel=1)
    rays = Rays(one, one, one, rows, torch.zeros(1, 2, dtype=torch.int64))
    seen = gain(Rendered(0.3 * one, torch.ones(1), torch.ones(1), coarse=coarse), rays, views)
    torch.testing.assert_close(seen.color, 0.6 * one)
    torch.testing.assert_close(seen.coarse.color, 0.2 * one)


def learnt_paint(gain: Gain | None, photographs: torch.Tensor, is_seen: torch.Tensor) -> torch.Tensor:
    """Colours [K, 3] of the points of a surface, from photographs [V, K, 3] that each show some of them."""
    n_views, n_points = is_seen.shape
    paint = torch.zeros(n_points, 3, requires_grad=True)
    groups = [{"params": [paint], "lr": 0.05}, *([] if gain is None else gain.groups())]
    optimizer, none = torch.optim.Adam(groups), torch.zeros(1, 3)
    views = replace(rendered("train", n_train_views=n_views, n_test_views=1, size=2, samples_per_pixel=1), alpha=None)
    for _ in range(400):
        view, point = (torch.rand(n_views, n_points) < 0.3).logical_and(is_seen).nonzero().T
        rays = Rays(*(none.expand(len(view), 3) for _ in range(3)), view, torch.stack((point, point), dim=1))
        seen = Rendered(paint[point].sigmoid(), torch.ones(len(view)), torch.ones(len(view)), is_dense=True)
        seen = seen if gain is None else gain(seen, rays, views)
        optimizer.zero_grad()
        rgb_mse(seen, Target(photographs[view, point])).backward()
        optimizer.step()
    return paint.detach().sigmoid()


def test_known_gains_are_found_and_held_out_views_are_better_for_it():
    torch.manual_seed(0)
    paint, is_seen = 0.1 + 0.5 * torch.rand(300, 3), torch.rand(N, 300) < 0.4
    photographs = paint * LOG_GAIN.exp()[:, None]
    gain = Gain(Gain.Config())
    with_gains, without = learnt_paint(gain, photographs, is_seen), learnt_paint(None, photographs, is_seen)
    found, is_known = gain.gains(N).detach().log(), is_seen.sum(0) > 1
    torch.testing.assert_close(found, LOG_GAIN, rtol=0, atol=0.02)
    # An unmodified view shows the paint itself.
    errors = [(one - paint)[is_known].square().mean().sqrt() for one in (with_gains, without)]
    assert errors[0] < 0.01 < 0.04 < errors[1]


def test_gains_are_trained_and_saved_and_scores_do_not_know_them(tmp_path, monkeypatch):
    overrides = [*tiny("trainer.max_steps=5", "trainer.limit_val_batches=1"), "system.exposure.name=gain"]
    config = load(ROOT / "configs/demo.yaml", overrides)
    add_run_keys(config, {"exp_dir": str(tmp_path), "train": True, "resume": None, "resume_weights_only": False})
    experiment = parse(Experiment, config)
    system, again = (systems.make(experiment.system, experiment) for _ in range(2))
    trainer = make_trainer(experiment, "none", tmp_path / "runs")
    trainer.fit(system, data := SceneData(datasets.make(experiment.dataset)))
    gains = system.exposure.gains(6)
    assert (gains != 1).any() and not system.exposure.log_gain[6:].any()
    again.load_state_dict(read_checkpoint(next(tmp_path.rglob("last.ckpt")), again)["state_dict"])
    assert torch.equal(again.exposure.gains(6), gains)
    monkeypatch.setattr(again.exposure, "forward", lambda *_: pytest.fail("a score asked for gains"))
    trainer.validate(again, data, verbose=False)
