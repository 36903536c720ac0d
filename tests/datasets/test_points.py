from dataclasses import replace

import pytest
import torch

from datasets.points import SparsePoints
from utils.registry import ConfigError


def points(error: torch.Tensor | None = None) -> SparsePoints:
    """Five points: seen in 3, 3, 2, 3 and 4 photographs; the second lies outside of a box of half side 1."""
    position = torch.tensor([[0.0, 0, 0], [0, 0, 1.5], [0.1, 0, 0], [0.2, 0, 0], [0.3, -1, 1]])
    n_seen = torch.tensor([3, 3, 2, 3, 4])
    point = torch.arange(5).repeat_interleave(n_seen)
    view = torch.cat([torch.arange(int(n)) for n in n_seen])
    return SparsePoints(position, None, error, view, point, torch.zeros(len(point), 2))


def test_points_are_trusted_that_three_photographs_show_inside_of_the_box():
    assert points().trusted(1.0)[:, 0].tolist() == pytest.approx([0.0, 0.2, 0.3])


def test_points_that_are_projected_badly_are_not_trusted():
    # The median of those that count otherwise is 0.5.
    error = torch.tensor([0.4, 9.0, 9.0, 1.1, 0.5])
    assert points(error).trusted(1.0)[:, 0].tolist() == pytest.approx([0.0, 0.3])


def test_points_without_observations_are_trusted_by_their_place():
    assert len(SparsePoints.unobserved(points().position).trusted(1.0)) == 4


def test_no_trusted_point_is_an_error_with_a_remedy():
    with pytest.raises(ConfigError, match="none of the 5 sparse points .*lambda_sparse_points to 0"):
        replace(points(), position=points().position + 2).trusted(1.0)
    with pytest.raises(ConfigError, match="none of the 5"):
        SparsePoints.unobserved(points().position + 2).trusted(1.0)
