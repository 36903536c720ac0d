"""Laws of the losses of known geometry."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from datasets import datasets
from datasets.module import SceneData
from datasets.points import SparsePoints
from datasets.synthetic import Synthetic
from datasets.views import Views
from systems import losses, systems
from systems.experiment import Experiment
from systems.loss_functions import LossSet
from systems.supervision import DATA, depth, depth_ssi, normal, sparse_points
from systems.trainer import make_trainer
from tests.moved import rendered as photographs
from tests.test_training import ROOT, tiny
from utils.config import load, parse
from utils.geometry import unit
from utils.registry import ConfigError
from utils.run_directory import add_run_keys
from utils.schedule import Schedule
from utils.types import Rendered, Target

ALL = DATA | {"distance", "normal"}
COLOR = torch.zeros(4, 3)


def seen(distance: torch.Tensor, **fields) -> Rendered:
    return Rendered(torch.zeros(len(distance), 3), torch.ones_like(distance), distance, is_dense=True, **fields)


def known(distance: torch.Tensor, **fields) -> Target:
    return Target(torch.zeros(len(distance), 3), depth=distance, **fields)


def fitted(rendered: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Squared error after the best scale and shift, over the variance: MonoSDF's equations 13 and 14 as they stand."""
    h = torch.stack((rendered, torch.ones_like(rendered)), dim=1)
    best = torch.linalg.solve(h.T @ h, h.T @ truth)
    return (h @ best - truth).square().sum() / (truth - truth.mean()).square().sum()


def test_depth_is_compared_in_world_units_where_it_is_known():
    distance = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    error = depth(seen(distance), known(torch.tensor([1.5, 0.0, 2.0, 4.25])))
    assert error.item() == pytest.approx((0.5 + 1 + 0.25) / 3)
    error.backward()
    assert distance.grad.tolist() == pytest.approx([-1 / 3, 0, 1 / 3, -1 / 3])


def test_a_ray_counts_by_its_opacity_and_not_at_all_where_it_meets_nothing():
    rendered = Rendered(COLOR, torch.tensor([1.0, 0.5, 0.0, 1.0], requires_grad=True), torch.full((4,), 2.0))
    error = depth(rendered, known(torch.tensor([3.0, 3.0, 9.0, 0.0])))
    assert error.item() == pytest.approx((1 + 0.5) / 3) and not error.requires_grad


def test_without_known_depths_the_losses_are_zero_and_finite():
    distance = torch.ones(4, requires_grad=True)
    for loss in (depth, depth_ssi):
        error = loss(seen(distance), known(torch.zeros(4)))
        error.backward()
        assert error == 0 and not distance.grad.any()
    error = normal(seen(distance, normal=torch.zeros(4, 3)), Target(COLOR, normal=torch.zeros(4, 3)))
    assert error == 0


def test_scale_and_shift_of_a_depth_map_do_not_matter():
    torch.manual_seed(0)
    distance = torch.rand(32) + 1
    truth = distance + 0.5 * torch.rand(32)
    error = depth_ssi(seen(distance), known(truth))
    torch.testing.assert_close(depth_ssi(seen(distance), known(5 * truth + 3)), error)
    torch.testing.assert_close(depth_ssi(seen(0.2 * distance + 1), known(truth)), error)
    assert depth_ssi(seen(distance), known(7 * distance + 2)) < 1e-10


def test_value_and_gradient_are_those_of_the_least_squares_of_the_paper():
    torch.manual_seed(1)
    truth = torch.rand(24, dtype=torch.float64) + 1
    distance = (truth + 0.3 * torch.rand(24)).requires_grad_()
    error = depth_ssi(seen(distance), known(truth))
    (gradient,) = torch.autograd.grad(error, distance)
    expected = fitted(distance, truth)
    (by_hand,) = torch.autograd.grad(expected, distance)
    torch.testing.assert_close(error, expected)
    torch.testing.assert_close(gradient, by_hand)


def test_every_photograph_has_a_scale_and_a_shift_of_its_own():
    torch.manual_seed(2)
    view = torch.tensor([7, 3, 7, 3] * 8)
    distance = torch.rand(32) + 1
    truth = distance + 0.5 * torch.rand(32)
    moved = torch.where(view == 7, 2 * truth + 1, 5 * truth)
    error = depth_ssi(seen(distance), known(truth, view=view))
    torch.testing.assert_close(depth_ssi(seen(distance), known(moved, view=view)), error)
    expected = 0.5 * sum(fitted(distance[view == row], truth[view == row]) for row in (3, 7))
    torch.testing.assert_close(error, expected)
    assert not torch.allclose(depth_ssi(seen(distance), known(moved)), error)


def test_shifts_are_measured_along_the_optical_axis():
    torch.manual_seed(3)
    axial, cosine = torch.rand(16) + 2, 0.7 + 0.3 * torch.rand(16)
    guessed = 0.5 * axial + 1
    target = known(guessed / cosine, cosine=cosine)
    assert depth_ssi(seen(axial / cosine), target) < 1e-10
    assert depth_ssi(seen(axial), target) > 1e-3


def test_what_is_near_is_not_far():
    truth = torch.linspace(1, 2, 8)
    assert depth_ssi(seen(3 - truth), known(truth)).item() == pytest.approx(1.0)


def test_normals_by_hand():
    seen_normal = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]])
    truth = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, -1.0], [0, 0, 0]])
    error = normal(seen(torch.ones(4), normal=seen_normal), Target(COLOR, normal=truth))
    # Same: 0. At a right angle: |.|_1 = 2, 1 - cos = 1. Opposite: 2 and 2. The last is unknown.
    assert error.item() == pytest.approx((0 + 3 + 4) / 3)


def test_normals_turn_towards_the_known_ones():
    raw = torch.tensor([[1.0, 0.5, -0.2]], requires_grad=True)
    truth = unit(torch.tensor([[0.2, 1.0, 0.3]]))
    for _ in range(300):
        error = normal(seen(torch.ones(1), normal=unit(raw)), Target(COLOR[:1], normal=truth))
        (gradient,) = torch.autograd.grad(error, raw)
        raw = (raw - 0.01 * gradient).detach().requires_grad_()
    assert (unit(raw) * truth).sum() > 0.999


def test_sparse_points_pull_with_full_strength_from_near_and_less_from_afar():
    distance = torch.tensor([0.0, 0.1, -0.3], requires_grad=True)
    error = sparse_points(seen(torch.ones(1), at_points=distance), known(torch.ones(1)), 0.1)
    assert error.item() == pytest.approx(0.1 * (math.log(2) + math.log(4)) / 3)
    error.backward()
    assert distance.grad.tolist() == pytest.approx([0, 0.5 / 3, -0.25 / 3])
    # A wide one is the plain absolute value of Geo-NeuS.
    wide = sparse_points(seen(torch.ones(1), at_points=distance), known(torch.ones(1)), 1e3)
    assert wide.item() == pytest.approx(0.4 / 3, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "missing", "remedy"),
    [
        ("sparse_points", "sparse points", "the data set has no sparse points"),
        ("sparse_points", "distance", "choose a model of a distance"),
        ("depth", "true depth", "the data set has no depth maps .or dataset.use_depth is false"),
        ("depth_ssi", "true depth", "the data set has no depth maps"),
        ("normal", "true normal", "the data set has no normal maps"),
        ("normal", "normal", "choose model.name=neus"),
    ],
)
def test_a_loss_without_its_data_is_an_error_with_a_remedy(name: str, missing: str, remedy: str):
    assert losses.get(name).needs <= ALL
    with pytest.raises(ConfigError, match=f"lambda_{name} is not 0, .*{remedy}"):
        LossSet({f"lambda_{name}": Schedule.constant(0.1)}, ALL - {missing})


def test_a_loss_asks_for_nothing_while_it_has_no_weight():
    weights = {"lambda_sparse_points": Schedule.parse([0, 1.0, 0.0, 100]), "lambda_depth": Schedule.constant(1.0)}
    chosen = LossSet(weights, ALL)
    assert chosen.needs(50, 0) == {"distance", "sparse points", "true depth"}
    assert chosen.needs(100, 0) == {"true depth"}


@datasets.register("pointed-data")
class Pointed:
    """The synthetic data set with points on its surface."""

    @dataclass
    class Config(Synthetic.Config):
        has_points: bool = True
        """Whether there are any."""

    def __init__(self, config: "Pointed.Config"):
        self.config = config

    def views(self, split: str) -> Views:
        views = photographs(split, n_train_views=6, n_test_views=2, size=24, samples_per_pixel=4)
        points = views.surface.points[:200]
        return replace(views, points=SparsePoints.unobserved(points) if self.config.has_points else None)


def experiment(folder, *words: str) -> Experiment:
    keys = tiny("dataset.name=pointed-data", "trainer.max_steps=2", "trainer.log_every_n_steps=1")
    config = load(ROOT / "configs/demo.yaml", [*keys, *words])
    add_run_keys(config, {"exp_dir": str(folder), "train": True, "resume": None, "resume_weights_only": False})
    return parse(Experiment, config)


def test_supervision_alone_moves_the_geometry_of_a_run(tmp_path):
    names = ("sparse_points", "depth", "depth_ssi", "normal")
    colors = [f"system.loss.lambda_{name}=0" for name in ("rgb_mse", "rgb_l1", "mask", "eikonal", "empty")]
    one = experiment(tmp_path, *colors, *(f"system.loss.lambda_{name}=1.0" for name in names))
    system = systems.make(one.system, one)
    before = {key: value.clone() for key, value in system.model.geometry.named_parameters()}
    trainer = make_trainer(one, "none", tmp_path / "runs")
    trainer.fit(system, SceneData(datasets.make(one.dataset)))
    assert all(trainer.callback_metrics[f"train/loss_{name}"] > 0 for name in names)
    assert any(not torch.equal(value, before[key]) for key, value in system.model.geometry.named_parameters())
    assert all(value.isfinite().all() for value in system.model.parameters())


def test_a_run_without_points_to_learn_from_does_not_begin(tmp_path):
    one = experiment(tmp_path, "dataset.has_points=false", "system.loss.lambda_sparse_points=1.0")
    trainer = make_trainer(one, "none", tmp_path / "runs")
    with pytest.raises(ConfigError, match="lambda_sparse_points is not 0, .* the data set has no sparse points"):
        trainer.fit(systems.make(one.system, one), SceneData(datasets.make(one.dataset)))


def test_normals_that_are_asked_for_in_training_are_those_of_evaluation(tmp_path):
    one = experiment(tmp_path)
    model, data = systems.make(one.system, one).model, datasets.make(one.dataset)
    model.config.randomized = False
    rays = data.views("train").image(0, torch.ones(3)).rays
    model.update(0, 0)
    assert model(rays).normal is None
    model.asked = frozenset({"normal"})
    taught = model(rays).normal
    assert taught.requires_grad
    torch.testing.assert_close(taught.detach(), model.eval()(rays).normal.detach())
