"""Clouds of millions of points; memory grows with the points, never with their pairs."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.spatial import KDTree
from torch import Tensor

FIRST, LARGEST = 2**12, 2**20
"""Points of the first and of the largest batches of `thinned`."""
CHUNK = 2**18
"""Points whose neighbours are looked at at once."""
NEIGHBOURS = 16
"""Points that a plane is fitted to."""


def thinned(
    points: Float64[np.ndarray, "N 3"], radius: float, tell: Callable[[float], None] = lambda share: None
) -> Int[np.ndarray, "M"]:
    """Ascending rows of the points that remain when each in turn removes all later ones within `radius` of it.

    The answer is that of the loop over single points. Batches are thinned by the points that were kept before, then
    in themselves. Each is as large as all before it together, so that few of its points are left to meet each other,
    however dense the cloud is (Blelloch et al. 2012).

    Args:
        points: in random order, which that bound needs; the answer is right in any.
        radius: inclusive.
        tell: told the finished share, in [0, 1].
    """
    kept: list[np.ndarray] = []
    start = 0
    while start < len(points):
        batch = np.arange(start, min(len(points), start + min(max(start, FIRST), LARGEST)))
        start += len(batch)
        if kept:
            tree = KDTree(points[np.concatenate(kept)])
            # The bound is exclusive.
            nearest = tree.query(points[batch], distance_upper_bound=np.nextafter(radius, np.inf), workers=-1)[0]
            batch = batch[np.isinf(nearest)]
        kept.append(batch[_first_of_pairs(points[batch], radius)])
        tell(start / len(points))
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)


def _first_of_pairs(points: Float64[np.ndarray, "B 3"], radius: float) -> np.ndarray:
    """[B] which points of one batch remain."""
    pairs = KDTree(points).query_pairs(radius, output_type="ndarray")  # the lower row comes first
    is_kept = np.ones(len(points), dtype=bool)
    is_open = np.ones(len(points), dtype=bool)
    while len(pairs):
        # What no open point threatens stays, and removes what it threatens itself.
        is_free = is_open.copy()
        is_free[pairs[:, 1]] = False
        is_kept[pairs[is_free[pairs[:, 0]], 1]] = False
        is_open &= is_kept & ~is_free
        pairs = pairs[is_open[pairs].all(axis=1)]
    return is_kept


def voxel_means(points: Float64[np.ndarray, "N 3"], size: float) -> Float64[np.ndarray, "M 3"]:
    """The mean of the points in every cube of side `size` that holds any."""
    cell = np.floor((points - points.min(axis=0)) / size).astype(np.int64)
    extent = cell.max(axis=0) + 1
    _, row, count = np.unique(np.ravel_multi_index(cell.T, extent), return_inverse=True, return_counts=True)
    return np.stack([np.bincount(row, axis) for axis in points.T], axis=1) / count[:, None]


def fitted_normals(points: Float[Tensor, "N 3"]) -> Float64[Tensor, "N 3"]:
    """[N, 3] unit normals of the planes through the nearest neighbours of every point; their side means nothing."""
    place = points.double().numpy()
    tree = KDTree(place)
    normals = torch.empty(len(place), 3, dtype=torch.float64)
    for start in range(0, len(place), CHUNK):
        part = slice(start, start + CHUNK)
        rows = tree.query(place[part], k=min(NEIGHBOURS, len(place)), workers=-1)[1].reshape(len(place[part]), -1)
        around = torch.from_numpy(place[rows] - place[rows].mean(axis=1, keepdims=True))  # [C, K, 3]
        normals[part] = torch.linalg.eigh(around.mT @ around)[1][..., 0]
    return normals


def spacing(points: Float[Tensor, "N 3"], n_asked: int = 10_000) -> float:
    """Median distance of points to their nearest neighbour, measured at some of them; 0 for a single point."""
    place = points.double().numpy()
    asked = place[:: max(1, len(place) // n_asked)]
    return float(np.median(KDTree(place).query(asked, k=2, workers=-1)[0][:, 1])) if len(place) > 1 else 0.0
