"""Counts that travel from a GPU to the host, with tensors on a CPU in the place of those of a GPU."""

import pytest
import torch

from utils.late_counts import LAG, WINDOW, LateCounts


def test_what_the_host_knows_is_there_at_once():
    assert LateCounts().exchange(7, 3) == [(7, 3)]


def test_what_a_gpu_counts_is_there_some_steps_later_in_order():
    counts = LateCounts()
    known = [counts.exchange(torch.tensor(10 * step), step) for step in range(5)]
    assert known == [[]] * LAG + [[(10 * step, step)] for step in range(5 - LAG)]
    assert counts.exchange(99, 9) == [(30, 3), (40, 4), (99, 9)]  # whoever waits knows all that was before


def test_a_count_is_not_looked_at_before_it_is_known():
    number, counts = torch.tensor(1), LateCounts()
    counts.exchange(number, 1)
    number.fill_(5)  # as a GPU does that is behind
    assert counts.exchange(8, 1) == [(5, 1), (8, 1)]


def test_only_the_last_steps_are_remembered():
    counts = LateCounts()
    for step in range(WINDOW + 3):
        counts.exchange(step, 1)
    assert [n for n, _ in counts.recent] == list(range(3, WINDOW + 3))


@pytest.mark.parametrize("n_before", [0, 1, 5])
def test_a_restored_queue_goes_on_as_if_nothing_had_happened(n_before):
    counts = LateCounts()
    for step in range(n_before):
        counts.exchange(torch.tensor(step), 2)
    resumed = LateCounts()
    resumed.restore(counts.state())
    assert resumed.state() == counts.state()
    for step in range(4):
        assert resumed.exchange(torch.tensor(step), 3) == counts.exchange(torch.tensor(step), 3)
    assert resumed.recent == counts.recent


class OnGpu(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    is_cuda = True


def test_a_gpu_is_asked_to_copy_and_is_waited_for_when_the_number_is_wanted(monkeypatch):
    done = []

    class Event:
        record = lambda self: done.append("record")  # noqa: E731
        synchronize = lambda self: done.append("wait")  # noqa: E731

    empty = torch.empty

    def pinned(*size, pin_memory, **options):
        done.append("pin" if pin_memory else "page")
        return empty(*size, **options)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", pinned)
    counts, number = LateCounts(), torch.tensor(6).as_subclass(OnGpu)
    for _ in range(LAG):
        counts.exchange(number, 2)
    assert done == LAG * ["pin", "record"]
    assert counts.exchange(number, 2) == [(6, 2)]
    assert done[-1] == "wait" and done.count("wait") == 1
