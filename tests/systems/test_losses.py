"""Laws of losses, budgets and seeds."""

import pytest
import torch

from systems.budget import RayBudget
from systems.loss_functions import LossSet
from utils.randomness import mix, reseed
from utils.registry import ConfigError
from utils.schedule import Schedule
from utils.types import Neighbors, Probes, Rendered, Samples, Target

NEUS = frozenset({"samples", "weights", "sdf", "gradient", "sharpness", "mask", "probes", "neighbors", "laplacian"})


def rendered(**fields) -> Rendered:
    """Two rays, the second of which hits nothing."""
    samples = Samples(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]), torch.tensor([0, 0]), torch.tensor([0, 2, 2]))
    default = {
        "color": torch.tensor([[0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]),
        "opacity": torch.tensor([0.8, 0.0]),
        "depth": torch.tensor([2.0, 0.0]),
        "samples": samples,
        "weights": torch.tensor([0.5, 0.3]),
        "sdf": torch.tensor([0.1, -0.1]),
        "gradient": torch.tensor([[2.0, 0, 0], [0, 1.0, 0]]),
        "laplacian": torch.tensor([3.0, -1.0]),
    }
    return Rendered(**{**default, **fields})


def target() -> Target:
    return Target(torch.tensor([[0.5, 0.7, 0.5], [0.0, 0.0, 0.0]]), mask=torch.tensor([1.0, 0.0]))


def loss(name: str, now: Rendered | None = None, **options: float) -> float:
    config = {f"lambda_{name}": Schedule.constant(1.0)} | {k: Schedule.constant(v) for k, v in options.items()}
    return LossSet(config, NEUS)(now or rendered(), target(), 0, 0).total.item()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rgb_mse", 0.04 / 3),  # the ray that hits nothing does not count
        ("rgb_l1", 0.2 / 3),
        ("rgb", 0.04 / 3 / 2),
        ("eikonal", (1 + 0) / 2),
        ("curvature", 2.0),
        ("mask", (-torch.tensor(0.8).log().item() - torch.tensor(0.999).log().item()) / 2),
        ("sparsity", torch.tensor(-0.1).exp().item()),
    ],
)
def test_losses_by_hand(name, expected):
    assert loss(name) == pytest.approx(expected, rel=1e-4)


def test_options_reach_their_loss():
    assert loss("sparsity", sparsity_scale=10.0) == pytest.approx(torch.tensor(-1.0).exp().item(), rel=1e-5)


def test_distortion_by_hand():
    # w = (0.5, 0.3), t = (1.5, 2.5), widths 1: (0.25 + 0.09) / 3 + 2 * 0.5 * 0.3 * 1 = 0.41333, over two rays.
    assert loss("distortion") == pytest.approx((0.34 / 3 + 0.3) / 2, rel=1e-5)


def test_probes_join_the_eikonal_term_and_guard_empty_cells():
    probes = Probes(torch.tensor([0.0, 0.0]), torch.tensor([[3.0, 0, 0], [1.0, 0, 0]]), torch.tensor([True, False]))
    now = rendered(probes=probes)
    assert loss("eikonal", now) == pytest.approx((1 + 0 + 4 + 0) / 4)
    assert loss("empty", now) == pytest.approx(0.02 / 2)


def test_losses_without_samples_are_zero_and_finite():
    empty = torch.zeros(0)
    samples = Samples(empty, empty, torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    now = rendered(
        opacity=torch.zeros(2), samples=samples, weights=empty, sdf=empty, gradient=torch.zeros(0, 3), laplacian=empty
    )
    for name in ("rgb", "rgb_mse", "rgb_l1", "eikonal", "curvature", "sparsity", "distortion"):
        assert loss(name, now) == 0


def test_curvature_shrinks_with_the_step_of_finite_differences_when_asked():
    now = rendered(tap_share=0.25)
    assert loss("curvature", now) == 2.0
    assert loss("curvature", now, curvature_decay=1.0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="curvature_decay is 1, but finite differences keep their step.*progressive"):
        loss("curvature", curvature_decay=1.0)


def test_tangent_curvature_by_hand():
    # The normals of both samples are x and y; beside the first it is x, beside the second at 60 degrees from y.
    gradient = torch.tensor([[3.0, 0, 0], [0.75**0.5, 0.5, 0], [-1.0, 0, 0]])
    neighbors = Neighbors(torch.tensor([0, 1, 0]), gradient, torch.tensor([True, True, False]))
    assert loss("tangent_curvature", rendered(neighbors=neighbors)) == pytest.approx(0.25 / 3)


def test_a_weight_of_zero_costs_nothing():
    weights = {"lambda_rgb_mse": Schedule.constant(0.0), "lambda_eikonal": Schedule.parse([10, 0.0, 1.0, 20])}
    report = LossSet(weights, NEUS)(rendered(), target(), 0, 0)
    assert report.total.item() == 0 and not report.terms


@pytest.mark.parametrize("weights", [{}, {"lambda_rgb_mse": 0.0}])
def test_without_any_loss_there_is_nothing_to_learn(weights):
    with pytest.raises(ConfigError, match="system.loss weighs no loss.*add system.loss.lambda_rgb_mse"):
        LossSet({name: Schedule.constant(weight) for name, weight in weights.items()}, NEUS)


def test_weights_follow_their_schedule():
    losses = LossSet({"lambda_eikonal": Schedule.parse([10, 0.0, 1.0, 20])}, NEUS)
    values = [losses(rendered(), target(), step, 0).total.item() for step in (0, 15, 30)]
    assert values == pytest.approx([0.0, 0.25, 0.5])


def test_a_misspelt_loss_names_the_nearest_one():
    with pytest.raises(ConfigError, match="system.loss.lambda_eikonl.*did you mean 'lambda_eikonal'"):
        LossSet({"lambda_eikonl": Schedule.constant(0.1)}, NEUS)


@pytest.mark.parametrize("name", ["curvature", "tangent_curvature", "distortion_bg", "empty", "eikonal"])
def test_a_loss_without_its_quantity_is_refused_with_a_remedy(name):
    with pytest.raises(ConfigError, match=f"system.loss.lambda_{name} is not 0.*set"):
        LossSet({f"lambda_{name}": Schedule.constant(0.1)}, frozenset({"weights"}))


def test_a_mask_loss_without_masks_is_a_notice(caplog):
    weights = {"lambda_mask": Schedule.constant(0.1), "lambda_rgb_mse": Schedule.constant(1.0)}
    assert LossSet(weights, NEUS - {"mask"})(rendered(), target(), 0, 0).terms.keys() == {"rgb_mse"}


def test_a_loss_of_an_earlier_pass_looks_at_what_that_pass_saw():
    first = rendered(color=torch.zeros(2, 3), is_dense=True)
    second = rendered(color=torch.full((2, 3), 0.5), is_dense=True, coarse=first)
    last = rendered(color=torch.ones(2, 3), is_dense=True, coarse=second)
    now = Target(torch.zeros(2, 3))
    passes = NEUS | {"prev_stage_", "prev_stage_prev_stage_"}
    for name, expected in (("", 1.0), ("prev_stage_", 0.25), ("prev_stage_prev_stage_", 0.0)):
        report = LossSet({f"lambda_{name}rgb_mse": Schedule.constant(2.0)}, passes)(last, now, 0, 0)
        assert report.terms == {f"{name}rgb_mse": expected} and report.total == 2 * expected
    with pytest.raises(ConfigError, match="lambda_prev_stage_rgb_mse is not 0.*set model.num_passes=2"):
        LossSet({"lambda_prev_stage_rgb_mse": Schedule.constant(1.0)}, NEUS)
    with pytest.raises(ConfigError, match="unknown loss.*did you mean 'lambda_rgb_mse'"):
        LossSet({"lambda_rgb_prev_stage_mse": Schedule.constant(1.0)}, passes)


def test_a_pass_that_no_loss_looks_at_is_a_notice(caplog):
    weighed = {"lambda_rgb_mse": Schedule.constant(1.0), "lambda_prev_stage_rgb_mse": Schedule.constant(1.0)}
    LossSet(weighed, NEUS | {"prev_stage_"})
    assert not caplog.text
    LossSet(weighed | {"lambda_prev_stage_rgb_mse": Schedule.constant(0.0)}, NEUS | {"prev_stage_"})
    assert "learns nothing; set system.loss.lambda_prev_stage_rgb_mse" in caplog.text


def test_every_ray_counts_where_nothing_is_skipped():
    # The second ray hits nothing; its error is that of (1, 1, 1) against (0, 0, 0).
    assert loss("rgb_mse", rendered(is_dense=True)) == pytest.approx((0.04 / 3 + 1) / 2, rel=1e-4)


def test_losses_that_nothing_computes_are_refused_by_name():
    with pytest.raises(ConfigError, match="system.loss.lambda_kl: nothing ever produced"):
        LossSet({"lambda_kl": Schedule.constant(0.0)}, NEUS)
    with pytest.raises(ConfigError, match="unknown loss.*did you mean 'lambda_depth_neg_penalty'"):
        LossSet({"depth_neg_penalty": Schedule.constant(1e4)}, NEUS)
    for name, remedy in (("autodecoder_norm", "sequence-autodecoder"), ("density_tv", "voxel-grid")):
        with pytest.raises(ConfigError, match=f"lambda_{name} is not 0.*{remedy}"):
            LossSet({f"lambda_{name}": Schedule.constant(0.1)}, NEUS)
    with pytest.raises(ConfigError, match="the data set has no depth maps"):
        LossSet({"lambda_depth_abs": Schedule.constant(0.1)}, NEUS)


def test_features_are_not_compared_with_colours():
    with pytest.raises(ValueError, match="renders 5 channels.*render_features_dimensions"):
        loss("rgb_mse", rendered(color=torch.zeros(2, 5)))


def test_depth_is_compared_after_the_scale_that_fits_best():
    now = rendered(depth=torch.tensor([1.0, 2.0]), is_dense=True)
    truth = Target(torch.zeros(2, 3), mask=torch.tensor([1.0, 0.0]), depth=torch.tensor([3.0, 6.0]))
    quantities = NEUS | {"true depth"}
    for name in ("depth_abs", "depth_abs_fg"):
        report = LossSet({f"lambda_{name}": Schedule.constant(1.0)}, quantities)(now, truth, 0, 0)
        assert report.total.item() == pytest.approx(0.0, abs=1e-5)
    # Known at the second ray only: its scale is 3.5 by itself.
    truth.depth = torch.tensor([0.0, 7.0])
    assert LossSet({"lambda_depth_abs": Schedule.constant(1.0)}, quantities)(now, truth, 0, 0).total.item() < 1e-5


def test_the_ray_budget_follows_the_samples_per_ray():
    budget = RayBudget(100, 1000, n_samples=10_000)
    budget.update(10_000)
    assert budget.n_rays == 100
    budget.update(5_000)  # half the samples: 0.9 * 100 + 0.1 * 200
    assert budget.n_rays == 110
    for _ in range(200):
        budget.update(budget.n_rays)  # one sample per ray
    assert budget.n_rays == 1000


def test_the_ray_budget_never_reaches_zero_and_never_divides_by_it():
    budget = RayBudget(4, 1000, n_samples=10)
    for _ in range(50):
        budget.update(10**9)
    assert budget.n_rays == 1
    budget.update(0)
    assert budget.n_rays == 1


def test_a_scene_that_no_ray_meets_is_diagnosed():
    budget = RayBudget(4, 1000, n_samples=10)
    with pytest.raises(ConfigError, match="model.radius"):
        for _ in range(1000):
            budget.update(0)


def test_the_ray_budget_survives_a_checkpoint():
    budget, resumed = RayBudget(100, 1000, 10_000), RayBudget(100, 1000, 10_000)
    budget.update(1000)
    resumed.load_state_dict(budget.state_dict())
    assert resumed.n_rays == budget.n_rays != 100


def test_seeds_differ_between_ranks_and_steps_and_repeat_otherwise():
    assert len({mix(seed, rank, step) for seed in range(5) for rank in range(5) for step in range(50)}) == 1250
    draws = []
    for _ in range(2):
        reseed(42, 1, 7)
        draws.append(torch.rand(4))
    assert torch.equal(*draws)
