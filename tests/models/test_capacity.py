"""Laws of the room that padded samples get."""

import torch

from models.rendering.capacity import LEAST, MARGIN, Capacity
from tests.utils.test_packing import samples_of
from utils.late_counts import LAG, WINDOW


def test_nothing_is_known_before_the_first_step_and_nothing_is_padded_then():
    capacity = Capacity()
    assert capacity.rows(100) is None
    exact = capacity.keep(samples_of([2, 3]), torch.ones(5, dtype=torch.bool))
    assert not exact.is_padded


def test_room_follows_the_samples_per_ray_with_a_margin():
    capacity = Capacity()
    capacity.counts.exchange(1_000_000, 1000)
    for n_rays in (1000, 3000, 4001):
        wanted = MARGIN * 1000 * n_rays
        assert wanted - 1 <= capacity.rows(n_rays) <= 1.07 * wanted
    assert capacity.rows(1) == LEAST and capacity.rows(0) is None


def test_there_are_few_lengths():
    capacity = Capacity()
    capacity.counts.exchange(100, 1)
    assert len({capacity.rows(n_rays) for n_rays in range(1000, 2000)}) <= 17


def test_the_largest_number_is_remembered_for_a_while():
    capacity = Capacity()
    capacity.counts.exchange(90_000, 100)
    before = capacity.rows(100)
    for _ in range(WINDOW - 1):
        capacity.counts.exchange(10_000, 100)
    assert capacity.rows(100) == before
    capacity.counts.exchange(10_000, 100)
    assert capacity.rows(100) < before / 5


def test_room_that_was_too_small_is_large_enough_some_steps_later():
    capacity = Capacity()
    capacity.counts.exchange(5000, 2)
    samples = samples_of([4000, 4000], 9000)
    chosen = torch.ones(9000, dtype=torch.bool)
    whole = [bool(capacity.keep(samples, chosen).is_whole.all()) for _ in range(LAG + 2)]
    assert whole == [False] * (LAG + 1) + [True]
