"""Laws of samples in arrays that are longer than there are samples."""

import pytest
import torch

from utils.packing import fitting
from utils.types import Rays, Rendered, Samples


def samples_of(counts: list[int], capacity: int | None = None) -> Samples:
    """Rays with so many samples each, all of length 1; padded to a capacity that is large enough."""
    offsets = torch.tensor([0, *counts]).cumsum(0)
    n = int(offsets[-1])
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    start = torch.arange(n) - offsets[ray] + 1.0
    if capacity is None:
        return Samples(start, start + 1, ray, offsets)
    arrays = [torch.nn.functional.pad(values, (0, capacity - n)) for values in (start, start + 1, ray)]
    return Samples(*arrays, offsets, torch.ones(len(counts), dtype=torch.bool))


def test_rays_that_end_beyond_the_capacity_lose_all_they_have():
    offsets, is_whole = fitting(torch.tensor([0, 3, 3, 7, 8]), 6)
    assert offsets.tolist() == [0, 3, 3, 3, 3]
    assert is_whole.tolist() == [True, True, False, False]


@pytest.mark.parametrize("capacity", [8, 100])
def test_where_there_is_room_all_rays_are_whole(capacity):
    offsets = torch.tensor([0, 3, 3, 7, 8])
    fitted, is_whole = fitting(offsets, capacity)
    assert torch.equal(fitted, offsets) and is_whole.all()


def test_samples_are_kept_in_a_given_room_as_they_are_without_limits():
    torch.manual_seed(0)
    exact, padded = samples_of([3, 0, 5, 2]), samples_of([3, 0, 5, 2], 16)
    chosen = torch.rand(10) < 0.5
    expected = exact.keep(chosen)
    # What padding was said to be does not matter.
    kept = padded.keep(torch.cat([chosen, torch.ones(6, dtype=torch.bool)]), 8)
    n = len(expected)
    assert 0 < n < 8 == len(kept) and torch.equal(kept.offsets, expected.offsets) and kept.is_whole.all()
    for name in ("t_start", "t_end", "ray"):
        values = getattr(kept, name)
        assert torch.equal(values[:n], getattr(expected, name)) and not values[n:].any()
    assert kept.n_wanted == n == expected.n_wanted


def test_samples_of_rays_without_room_are_left_out():
    padded = samples_of([3, 4, 2], 12)
    kept = padded.keep(torch.ones(12, dtype=torch.bool), 8)
    assert kept.offsets.tolist() == [0, 3, 7, 7] and kept.is_whole.tolist() == [True, True, False]
    assert kept.t_start.tolist() == [1, 2, 3, 1, 2, 3, 4, 0] and kept.ray.tolist() == [0, 0, 0, 1, 1, 1, 1, 0]
    assert kept.n_wanted == 7 * 3 // 2  # the third ray counts as an average one
    # Once a ray has lost samples, room does not bring them back.
    again = kept.keep(torch.ones(8, dtype=torch.bool), 100)
    assert again.is_whole.tolist() == [True, True, False] and again.offsets.tolist() == kept.offsets.tolist()
    unpadded = kept.keep(torch.ones(8, dtype=torch.bool))
    assert len(unpadded) == 7 and unpadded.is_whole.tolist() == [True, True, False]


def test_means_do_not_count_padding_even_if_it_is_not_a_number():
    padded = samples_of([2, 1], 5)
    values = torch.tensor([1.0, 2.0, 6.0, float("nan"), float("inf")], requires_grad=True)
    assert padded.mean(values).item() == 3
    mean = padded.mean(values, torch.tensor([3.0, 8.0]))
    assert mean.item() == 4
    mean.backward()
    assert values.grad.tolist() == pytest.approx([0.2, 0.2, 0.2, 0, 0])
    assert samples_of([0, 0], 4).mean(torch.ones(4)).item() == 0


def test_padding_lies_where_a_ray_begins():
    nowhere = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64)
    rays = Rays(torch.tensor([[1.0, 2, 3]]), torch.tensor([[0, 0, 1.0]]), torch.ones(1, 3), *nowhere)
    points = samples_of([1], 3).points(rays)
    assert points.tolist() == [[1, 2, 4.5], [1, 2, 3], [1, 2, 3]]


def test_rays_without_room_count_in_no_mean_over_rays():
    def rendered(is_whole: list[bool], behind: Rendered | None = None) -> Rendered:
        samples = samples_of([1, 1, 1], 4)
        samples.is_whole = torch.tensor(is_whole)
        return Rendered(torch.zeros(3, 3), torch.ones(3), torch.ones(3), samples=samples, background=behind)

    now = rendered([True, True, False])
    assert now.is_hit.tolist() == [True, True, False]
    assert now.ray_weights.tolist() == [1.5, 1.5, 0]
    both = rendered([True, True, False], rendered([False, True, True]))
    assert both.is_hit.tolist() == [False, True, False] and both.ray_weights.tolist() == [0, 3, 0]
    none = rendered([False, False, False])
    assert none.ray_weights.tolist() == [0, 0, 0]
