"""Laws of the watch over the sharpness: it speaks once, and not on good runs."""

import math

import pytest

from systems.sharpness import SharpnessWatch

DEMO = [20 * math.exp(3.5 * (1 - math.exp(-step / 1200))) for step in range(100, 3501, 100)]
"""A formula that grows about as the demo does: from 20 to several hundred, ever slower."""
SLOW = [19.7, 29.8, 37.4, 45.6, 50.8, 54.6, 57.6, 58.3, 60.2, 61.5, 62.5, 62.6, 62.9, 63.4]
"""Measured with neus-transforms on a capture with a noisy background, the least sharp of good runs."""


def watch(values: list[float], caplog: pytest.LogCaptureFixture, max_steps: int | None = None) -> list[str]:
    """What is said while these values come every 100 steps."""
    one, n = SharpnessWatch(), len(values)
    for row, value in enumerate(values):
        one.see(value, 100 * (row + 1), 100 * n if max_steps is None else max_steps)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("values", [DEMO, SLOW, [20.0, 17.0, 15.0, *DEMO]])
def test_good_runs_hear_nothing(values: list[float], caplog: pytest.LogCaptureFixture):
    assert watch(values, caplog) == []


def test_a_collapse_is_told_once_with_a_remedy(caplog: pytest.LogCaptureFixture):
    said = watch([20.0, 35.0, 50.0, 24.0, 10.0, 4.0], caplog)
    assert len(said) == 1 and "\n" not in said[0]
    assert "fallen from 50 to 24 at step 400" in said[0] and "system.warmup_steps" in said[0]


def test_a_surface_that_never_sharpens_is_told_at_half_of_the_steps(caplog: pytest.LogCaptureFixture):
    said = watch([20.1, 20.4, 20.2, 20.3, 20.9, 21.1], caplog)
    assert len(said) == 1 and "is 20.2 at step 300, after 20.1 at first" in said[0] and "--inspect" in said[0]


def test_a_training_without_end_may_take_its_time(caplog: pytest.LogCaptureFixture):
    assert watch([20.2, 20.3, 20.4, 20.5], caplog, max_steps=-1) == []


def test_a_resumed_run_remembers_the_beginning_and_does_not_repeat_itself(caplog: pytest.LogCaptureFixture):
    first, again, silent = SharpnessWatch(), SharpnessWatch(), SharpnessWatch()
    first.see(60.0, 100, 1000)
    again.load_state_dict(first.state_dict())
    again.see(29.5, 200, 1000)
    assert "fallen from 60 to 29.5" in caplog.text
    caplog.clear()
    silent.load_state_dict(again.state_dict())
    silent.see(5.0, 300, 1000)
    assert not caplog.records
