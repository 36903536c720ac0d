"""Laws of optimisers and learning rates."""

import io
from typing import Any

import pytest
import torch
from torch import nn

from systems.optim import OptimizerConfig, SchedulerConfig, forget, make_optimizers
from utils.config import parse
from utils.registry import ConfigError
from utils.resolvers import exponential_decay_rate


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.geometry = nn.Linear(2, 2)
        self.texture = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.variance = nn.Parameter(torch.zeros(()))
        self.shape = nn.Identity()


PARTS = {"geometry": {"lr": 0.01}, "texture": {"lr": 0.01}, "variance": {"lr": 0.001}}
ADAM = {"name": "AdamW", "args": {"lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-15}}


def warm_up(warmup: int = 500, max_steps: int = 20000) -> dict[str, Any]:
    return {
        "name": "SequentialLR",
        "interval": "step",
        "milestones": [warmup],
        "schedulers": [
            {"name": "LinearLR", "args": {"start_factor": 0.01, "end_factor": 1.0, "total_iters": warmup}},
            {"name": "ExponentialLR", "args": {"gamma": exponential_decay_rate(0.1, max_steps - warmup)}},
        ],
    }


def constant(steps: int = 5000) -> dict[str, Any]:
    return {
        "name": "SequentialLR",
        "interval": "step",
        "milestones": [steps],
        "schedulers": [
            {"name": "ConstantLR", "args": {"factor": 1.0, "total_iters": steps}},
            {"name": "ExponentialLR", "args": {"gamma": exponential_decay_rate(0.1, 20000 - steps)}},
        ],
    }


STEPPED = {"name": "MultiStepLR", "interval": "step", "args": {"milestones": [10000, 15000, 18000], "gamma": 0.33}}


def build(optimizer: Any, scheduler: Any = None, model: nn.Module | None = None) -> tuple[Any, Any]:
    config = parse(OptimizerConfig, optimizer, "system.optimizer")
    schedule = None if scheduler is None else parse(SchedulerConfig, scheduler, "system.scheduler")
    optimizers, schedulers = make_optimizers(config, schedule, model or Model())
    return optimizers[0], schedulers[0]["scheduler"] if schedulers else None


def rates(scheduler: Any, optimizer: Any, steps: list[int], group: int = 0) -> list[float]:
    seen = []
    optimizer.step()
    for step in range(max(steps) + 1):
        if step in steps:
            seen.append(optimizer.param_groups[group]["lr"])
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (warm_up(), [1.0e-4, 5.05e-3, 0.01, 5.88e-3, 3.26e-3, 1.80e-3, 1.27e-3, 1.00e-3]),
        (constant(), [0.01, 0.01, 0.01, 0.01, 4.64e-3, 2.15e-3, 1.36e-3, 1.00e-3]),
        (STEPPED, [0.01, 0.01, 0.01, 0.01, 3.3e-3, 1.09e-3, 3.59e-4, 3.59e-4]),
    ],
    ids=["warm-up", "constant", "stepped"],
)
def test_published_schedules_give_the_published_rates(scheduler: Any, expected: list[float]) -> None:
    optimizer, learning_rate = build(ADAM | {"params": PARTS}, scheduler)
    seen = rates(learning_rate, optimizer, [0, 250, 500, 5000, 10000, 15000, 18000, 20000])
    assert seen == pytest.approx(expected, rel=5e-3)


def test_every_group_follows_the_schedule_from_its_own_rate() -> None:
    optimizer, learning_rate = build(ADAM | {"params": PARTS}, warm_up())
    assert [group["name"] for group in optimizer.param_groups] == ["geometry", "texture", "variance"]
    assert rates(learning_rate, optimizer, [0, 500], group=2) == pytest.approx([1e-5, 1e-3])


def test_the_next_schedule_begins_at_the_base_rate() -> None:
    children = [
        {"name": "ExponentialLR", "args": {"gamma": 0.5}},
        {"name": "StepLR", "args": {"step_size": 2, "gamma": 0.1}},
    ]
    scheduler = {"name": "SequentialLR", "interval": "step", "milestones": [3], "schedulers": children}
    optimizer, learning_rate = build({"name": "SGD", "args": {"lr": 1.0}}, scheduler)
    seen = rates(learning_rate, optimizer, list(range(7)))
    # Halved twice, then from 1 again, a tenth after every second step of its own.
    assert seen == pytest.approx([1, 0.5, 0.25, 1, 1, 0.1, 0.1])


def test_factors_of_chained_schedules_multiply() -> None:
    children = [{"name": "ExponentialLR", "args": {"gamma": 0.5}}, {"name": "ExponentialLR", "args": {"gamma": 0.1}}]
    optimizer, learning_rate = build(
        {"name": "SGD", "args": {"lr": 1.0}}, {"name": "Chained", "interval": "step", "schedulers": children}
    )
    assert rates(learning_rate, optimizer, [0, 1, 2]) == pytest.approx([1, 0.05, 0.0025])


def test_a_resumed_run_has_the_rate_of_the_present_configuration() -> None:
    old, old_rate = build(ADAM | {"params": PARTS}, warm_up(max_steps=1000))
    rates(old_rate, old, [699])
    file = io.BytesIO()
    torch.save({"optimizer": old.state_dict(), "scheduler": old_rate.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    changed = {"name": "AdamW", "args": {"lr": 0.01, "betas": [0.8, 0.9]}, "params": PARTS | {"geometry": {"lr": 0.02}}}
    new, new_rate = build(changed, warm_up(max_steps=20000))
    new.load_state_dict(saved["optimizer"])
    new_rate.load_state_dict(saved["scheduler"])
    # 200 of 19500 steps of decay to a tenth.
    factor = 0.1 ** (200 / 19500)
    assert [group["lr"] for group in new.param_groups] == pytest.approx([0.02 * factor, 0.01 * factor, 0.001 * factor])
    assert list(new.param_groups[0]["betas"]) == [0.8, 0.9]
    assert new.param_groups[0]["eps"] == 1e-8
    assert new.state_dict()["state"].keys() == old.state_dict()["state"].keys()


def test_without_a_schedule_a_resumed_run_has_the_present_rate() -> None:
    old, _ = build({"name": "Adam", "args": {"lr": 0.1}})
    new, _ = build({"name": "Adam", "args": {"lr": 0.2}})
    new.load_state_dict(old.state_dict())
    assert new.param_groups[0]["lr"] == 0.2


def test_parts_without_parameters_need_no_rate() -> None:
    optimizer, _ = build(ADAM | {"params": PARTS | {"shape": {"lr": 0.5}}})
    assert [group["name"] for group in optimizer.param_groups] == ["geometry", "texture", "variance"]


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "message"),
    [
        (ADAM | {"name": "AdamV"}, None, "system.optimizer.name: unknown optimizer 'AdamV' (did you mean 'Adam"),
        (
            {"name": "Adam", "args": {"rl": 0.1}},
            None,
            "system.optimizer.args.rl: unknown argument (did you mean 'lr'?)",
        ),
        ({"name": "Adam", "args": {"lr": "fast"}}, None, "system.optimizer.args.lr is 'fast', expected a number"),
        ({"name": "Adam", "args": {"lr": -1.0}}, None, "system.optimizer.args: Invalid learning rate: -1.0"),
        (
            ADAM | {"params": PARTS | {"geometri": {}}},
            None,
            "system.optimizer.params.geometri: the model has no 'geometri'",
        ),
        (
            ADAM | {"params": {"geometry": {}, "texture": {}}},
            None,
            "does not list variance (1 parameters, first variance)",
        ),
        (ADAM | {"params": PARTS | {"texture.0": {}}}, None, "system.optimizer.params.texture.0 shares parameters"),
        (ADAM | {"params": PARTS | {"geometry": {"rate": 1}}}, None, "system.optimizer.params.geometry.rate: unknown"),
        (ADAM, {"name": "MultiStep", "args": {}}, "unknown scheduler 'MultiStep' (did you mean 'MultiStepLR'?)"),
        (ADAM, {"name": "ExponentialLR"}, "system.scheduler.args.gamma is required"),
        (
            ADAM,
            {"name": "ExponentialLR", "args": {"gamma": "x"}},
            "system.scheduler.args.gamma is 'x', expected a number",
        ),
        (ADAM, {"name": "Chained"}, "system.scheduler: Chained needs a list of schedulers"),
        (
            ADAM,
            warm_up() | {"milestones": []},
            "system.scheduler: milestones is [], but SequentialLR of 2 schedulers has 1",
        ),
        (ADAM, {"name": "ReduceLROnPlateau"}, "unknown scheduler 'ReduceLROnPlateau'"),
    ],
)
def test_mistakes_are_told_in_one_line(optimizer: Any, scheduler: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(optimizer, scheduler)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def linear_exponential(milestone: int, start: float, gamma: float, step_size: int) -> dict[str, Any]:
    """The Implicitron family's LinearExponential: a warm-up from `start`, then a decay by `gamma` per `step_size`."""
    return {
        "name": "SequentialLR",
        "interval": "step",
        "milestones": [milestone],
        "schedulers": [
            {"name": "LinearLR", "args": {"start_factor": start, "end_factor": 1.0, "total_iters": milestone}},
            {"name": "ExponentialLR", "args": {"gamma": exponential_decay_rate(gamma, step_size)}},
        ],
    }


@pytest.mark.parametrize("name", ["Adam", "SGD", "Adagrad"])
def test_schedules_of_the_implicitron_family(name):
    optimizer, scheduler = build({"name": name, "args": {"lr": 1.0}}, linear_exponential(200, 0.1, 0.1, 250))
    steps = [0, 50, 199, 200, 450, 575]

    def published(epoch: int) -> float:
        weight = (200 - epoch) / 200
        return weight * 0.1 + 1 - weight if epoch < 200 else 0.1 ** ((epoch - 200) / 250)

    assert rates(scheduler, optimizer, steps) == pytest.approx([published(step) for step in steps], rel=1e-4)
    decay = {"name": "ExponentialLR", "interval": "step", "args": {"gamma": exponential_decay_rate(0.1, 250)}}
    optimizer, scheduler = build({"name": name, "args": {"lr": 1.0}}, decay)
    assert rates(scheduler, optimizer, [125, 250, 500]) == pytest.approx([0.1**0.5, 0.1, 0.01], rel=1e-4)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad", "RMSprop"])
def test_what_an_optimiser_forgets_moves_as_at_its_first_step(name):
    config = {"name": name, "args": {"lr": 0.01} | ({"momentum": 0.9} if name == "SGD" else {})}

    def step(model: Model, optimizer: Any) -> None:
        for row, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 + row)
        optimizer.step()

    old, fresh = Model(), Model()
    optimizer, _ = build(config, model=old)
    for _ in range(3):
        step(old, optimizer)
    forget(optimizer, old.parameters())
    fresh.load_state_dict(old.state_dict())
    step(old, optimizer)
    step(fresh, build(config, model=fresh)[0])
    for one, other in zip(old.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("arguments", [{}, {"fused": False}, {"foreach": True}])
def test_steps_are_not_fused_where_they_may_not_be(arguments):
    config = parse(OptimizerConfig, {"name": "Adam", "args": arguments}, "system.optimizer")
    (optimizer,), _ = make_optimizers(config, None, Model(), is_fused=False)
    assert not optimizer.defaults["fused"]
    (optimizer,), _ = make_optimizers(config, None, Model())
    assert bool(optimizer.defaults["fused"]) == (not arguments)


def test_fused_steps_that_were_asked_for_and_may_not_be_are_refused():
    config = parse(OptimizerConfig, {"name": "Adam", "args": {"fused": True}}, "system.optimizer")
    with pytest.raises(
        ConfigError, match=r"system\.optimizer\.args\.fused is true, .* set trainer\.gradient_clip_val to"
    ):
        make_optimizers(config, None, Model(), is_fused=False)
