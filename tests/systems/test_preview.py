"""Laws of pictures made of few rays."""

import math

import pytest
import torch

from systems.preview import MOST_DISCS, splat


def test_one_ray_is_a_disc_that_fades():
    color, coverage = splat(torch.tensor([[10, 6]]), torch.tensor([[0.2, 0.8]]), 24, 16)
    radius = 16.0
    for column, row in [(10, 6), (14, 6), (10, 0), (2, 12)]:
        distance = (column - 10) ** 2 + (row - 6) ** 2
        assert coverage[row, column].item() == pytest.approx(1 - distance / radius**2, abs=1e-6)
    torch.testing.assert_close(color, coverage[..., None] * torch.tensor([0.2, 0.8]))


def test_discs_are_composited_in_the_order_of_the_rays():
    # Four rays: a radius of 2 pixels, opacity 3/4 at distance 1.
    pixel = torch.tensor([[3, 2], [2, 2], [3, 2], [0, 0]])
    color, coverage = splat(pixel, torch.tensor([[1.0], [0.5], [9.0], [0.0]]), 4, 4)
    assert color[2, 3, 0].item() == pytest.approx(1.0)  # the first ray is opaque in its middle
    assert color[2, 2, 0].item() == pytest.approx(0.75 * 1 + 0.25 * 1 * 0.5)
    assert coverage[2, 2].item() == pytest.approx(1.0)


def test_the_sixth_disc_of_a_pixel_is_not_seen():
    n = 16
    pixel = torch.tensor([[1, 0]]).repeat(n, 1)
    pixel[MOST_DISCS:] = torch.tensor([0, 0])  # opaque there, 3/4 beside it
    values = torch.zeros(n, 1)
    values[MOST_DISCS:] = 1
    size = 2 * int(math.sqrt(n))
    color, _ = splat(pixel, values, size, size)
    # Five discs of 3/4 come first; those that would hide them completely are beyond the limit.
    assert color[0, 0, 0].item() == 0


def test_all_rays_of_a_picture_are_the_picture():
    generator = torch.Generator().manual_seed(0)
    width, height = 7, 5
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixel = torch.stack([columns, rows], dim=-1).view(-1, 2)
    values = torch.rand(len(pixel), 3, generator=generator)
    color, coverage = splat(pixel, values, width, height)
    torch.testing.assert_close(color.view(-1, 3), values)
    assert (coverage == 1).all()
