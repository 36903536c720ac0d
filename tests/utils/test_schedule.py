"""Laws of values that change over training."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from utils.registry import ConfigError
from utils.schedule import Schedule, unfinished


@pytest.mark.parametrize("value", [[10, 1.0, 3.0, 20], {"start_step": 10, "start": 1.0, "end": 3.0, "end_step": 20}])
def test_a_schedule_is_constant_then_linear_then_constant(value: Any) -> None:
    schedule = Schedule.parse(value)
    assert [schedule.at(step) for step in (0, 10, 15, 20, 1000)] == [1, 1, 2, 3, 3]


def test_three_values_start_at_step_zero() -> None:
    assert Schedule.parse([4.0, 0.0, 8]) == Schedule.parse([0, 4.0, 0.0, 8])
    assert Schedule.parse({"start": 4, "end": 0, "end_step": 8}) == Schedule.parse([4.0, 0.0, 8])


def test_a_number_stays_what_it_is() -> None:
    assert Schedule.parse(0.25).at(12345, epoch=6) == 0.25


def test_an_integer_end_counts_steps_and_a_float_counts_epochs() -> None:
    assert Schedule.parse([0.0, 1.0, 10]).at(step=5, epoch=9) == 0.5
    assert Schedule.parse([0.0, 1.0, 10.0]).at(step=5, epoch=9) == 0.9


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "expected a number, [start_step, start, end, end_step]"),
        ([1, 2, 3, 4, 5], "expected a number, [start_step"),
        ([5, 0, 1, 5], "key is [5, 0, 1, 5], which ends at 5; it must end after 5"),
        ([0, 1, 0], "which ends at 0; it must end after 0"),
        ([0, True, 5], "does not hold numbers only"),
        ([0, "a", 5], "does not hold numbers only"),
        (True, "key is True; expected a number"),
        ("0.1", "key is '0.1'; expected a number"),
        (None, "key is None; expected a number"),
        ({"start": 1, "end": 2}, "key.end_step is required"),
        ({"begin": 1}, "key.begin: unknown key"),
    ],
)
def test_other_shapes_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule.parse(value, "key")
    assert message in str(caught.value)


@dataclass
class Losses:
    weights: dict[str, Schedule] = field(default_factory=dict)
    widths: list[Schedule] = field(default_factory=list)
    name: str = "losses"


def test_schedules_that_training_leaves_before_their_end_are_found() -> None:
    weights = {"a": Schedule.parse([0, 1, 200]), "b": Schedule.parse([0, 1, 100]), "c": Schedule.parse(3)}
    config = {"system": Losses(weights, [Schedule.parse([0.0, 1.0, 5.0])])}
    late, by_epoch = unfinished(config, max_steps=100)
    assert late == "system.weights.a ends at step 200, after trainer.max_steps (100)"
    assert by_epoch.startswith("system.widths[0] counts epochs because its end, 5.0, is a float")
    assert unfinished(config, max_steps=-1) == [by_epoch]


@dataclass
class Grid:
    resolutions: dict[int, int]
    crops: int = 0

    def last_changes(self) -> dict[str, int]:
        return {"resolutions": max(self.resolutions), "crops": self.crops}


def test_changes_after_the_last_step_are_found() -> None:
    config = {"model": {"grid": Grid({0: 8, 200: 16}, 100)}}
    assert unfinished(config, max_steps=100) == [
        "model.grid.resolutions changes something at step 200, after trainer.max_steps (100)"
    ]
    assert len(unfinished(config, max_steps=50)) == 2 and unfinished(config, max_steps=-1) == []
