"""The protocol by which surfaces of DTU scans are scored, as the program DTUeval-python defines it.

The mesh becomes points 0.2 mm apart. Accuracy is the mean distance from those the scanner could see to the scanner's
points; completeness the mean distance from the scanner's points above the table to those of the mesh. Distances of
20 mm and more are left out of the means, and nothing is aligned (no ICP). All lengths are millimetres.

Different from that program: the random order of the points is seeded, and memory grows with the points, not with the
pairs of neighbours.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial import KDTree

from datasets.dtu_reference import DtuReference
from utils.point_clouds import thinned
from utils.progress import progress
from utils.registry import ConfigError
from utils.types import Mesh

SPACING = 0.2
"""Between the points that stand for the mesh."""
MARGIN = 60.0
"""Points count as near from this distance below the lower corner of the box to twice it above the other."""
FAR = 20.0
"""Distances from here on are left out."""
CHUNK = 2**18
"""Points that are made, or looked up, at once."""
SMALLEST = 10.0
"""Extent of the smallest mesh that can be an object on DTU's table."""
MOST_SAMPLES = 2 * 10**8
"""More points than these are no object on DTU's table."""
REMEDY = "it must be in DTU's millimetres, as with export.coordinates=dataset"


def dtu_error(mesh: Mesh, reference: DtuReference, seed: int = 0) -> dict[str, Any]:
    """Accuracy, completeness and their mean, `chamfer` (DTU's "overall"), in millimetres.

    Args:
        mesh: in DTU's world.
        reference: of the mesh's scan.
        seed: of the order in which points are thinned.

    Raises:
        ConfigError: nothing of the mesh is where the scanner saw, or nothing is nearer than 20 mm.
    """
    extent = float((mesh.vertices.amax(dim=0) - mesh.vertices.amin(dim=0)).max())
    if extent < SMALLEST:
        raise ConfigError(f"the mesh is {extent:.4g} mm large, less than anything on DTU's table; {REMEDY}")
    cloud = np.concatenate([mesh.vertices.double().numpy(), grid_samples(mesh)])
    np.random.default_rng(seed).shuffle(cloud, axis=0)
    with progress(f"thinning the mesh to {SPACING:g} mm", len(cloud), "points") as tell:
        cloud = cloud[thinned(cloud, SPACING, tell)]
    near = cloud[is_near(cloud, reference)]
    seen = near[is_observed(near, reference)]
    if not len(seen):
        corners = " to ".join(str(corner.round(1).tolist()) for corner in reference.box)
        raise ConfigError(
            f"none of {len(cloud):,} points of the mesh lies where the scanner saw, in the box from {corners}; {REMEDY}"
        )
    above = reference.points[reference.points @ reference.plane[:3] + reference.plane[3] > 0]
    accuracy, share_accurate = _mean_distance(seen, reference.points, "from the mesh to the scan")
    completeness, share_complete = _mean_distance(above, near, "from the scan to the mesh")
    return {
        "accuracy": accuracy,
        "completeness": completeness,
        "chamfer": (accuracy + completeness) / 2,
        "n_points": len(seen),
        "n_truth_points": len(above),
        "share_beyond_20_mm": 1 - share_accurate,
        "share_of_truth_beyond_20_mm": 1 - share_complete,
        "seed": seed,
    }


def grid_samples(mesh: Mesh, spacing: float = SPACING) -> Float64[np.ndarray, "N 3"]:
    """Points on a grid along two sides of every triangle, their density that of a square grid of `spacing`.

    Triangles that are smaller than the spacing have none.

    Raises:
        ConfigError: an area that is too large for the spacing.
    """
    a, b, c = mesh.vertices[mesh.faces].double().numpy().transpose(1, 0, 2)
    first, second = b - a, c - a
    twice_area = np.linalg.norm(np.cross(first, second), axis=-1)
    kept = twice_area > 0
    a, first, second, twice_area = a[kept], first[kept], second[kept], twice_area[kept]
    if twice_area.sum() / 2 / spacing**2 > MOST_SAMPLES:
        raise ConfigError(
            f"the mesh has an area of {twice_area.sum() / 2:.4g} mm², too large for points {spacing:g} mm apart; "
            f"remove its background, and {REMEDY}"
        )
    lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    # Sides that are not at right angles make the cells of the grid smaller.
    step = spacing * np.sqrt(lengths[0] * lengths[1] / twice_area)
    n_first, n_second = (np.floor(length / step).astype(np.int64) for length in lengths)

    face = np.repeat(np.arange(len(a)), n_first)
    row = np.arange(len(face)) - np.repeat(n_first.cumsum() - n_first, n_first)
    along = (row + 0.5) / n_first[face]
    n_places = np.ceil(n_second[face] * (1 - along)).astype(np.int64)
    samples = [np.zeros((0, 3))]
    for part in _runs(n_places):
        line = np.repeat(np.arange(part.start, part.stop), n_places[part])
        column = np.arange(len(line)) - np.repeat(n_places[part].cumsum() - n_places[part], n_places[part])
        across = (column + 0.5) / n_second[face[line]]
        inside = along[line] + across < 1
        line, across = line[inside], across[inside, None]
        of = face[line]
        samples.append(a[of] + along[line, None] * first[of] + across * second[of])
    return np.concatenate(samples)


def is_near(points: Float64[np.ndarray, "N 3"], reference: DtuReference) -> Bool[np.ndarray, "N"]:
    """[N] which points lie in the widened box of the object."""
    lower, upper = reference.box
    return ((points >= lower - MARGIN) & (points < upper + 2 * MARGIN)).all(axis=1)


def is_observed(points: Float64[np.ndarray, "N 3"], reference: DtuReference) -> Bool[np.ndarray, "N"]:
    """[N] which points lie in cells that the scanner saw."""
    cell = np.rint((points - reference.box[0]) / reference.cell).astype(np.int64)
    inside = ((cell >= 0) & (cell < reference.observed.shape)).all(axis=1)
    seen = np.zeros(len(points), dtype=bool)
    seen[inside] = reference.observed[tuple(cell[inside].T)]
    return seen


def _mean_distance(points: np.ndarray, others: np.ndarray, what: str) -> tuple[float, float]:
    """The mean of the distances below 20 mm to the nearest of the others, and the share of points that have one."""
    total, n_close = 0.0, 0
    with progress(f"distances {what}", len(points), "points") as tell:
        tree = KDTree(others)
        for start in range(0, len(points), CHUNK):
            distance = tree.query(points[start : start + CHUNK], distance_upper_bound=FAR, workers=-1)[0]
            close = distance < FAR
            total, n_close = total + float(distance[close].sum()), n_close + int(close.sum())
            tell(min(1.0, (start + CHUNK) / len(points)))
    if not n_close:
        raise ConfigError(
            f"none of {len(points):,} distances {what} is below {FAR:g} mm; check that the mesh is one of this scan"
        )
    return total / n_close, n_close / len(points)


def _runs(n_places: np.ndarray) -> Iterator[slice]:
    """Slices of lines with about `CHUNK` places each."""
    total = n_places.cumsum()
    start, before = 0, 0
    while start < len(n_places):
        stop = max(start + 1, int(np.searchsorted(total, before + CHUNK, side="right")))
        yield slice(start, stop)
        start, before = stop, int(total[stop - 1])
