"""Distances to the triangles of a mesh, and points drawn on them."""

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Float64, Int
from scipy.spatial import KDTree
from torch import Tensor

from utils.types import Mesh

PAIRS = 2**20
"""Most pairs of a point and a triangle that are measured at once."""
CANDIDATES = 16
"""Triangles of similar size that one point is measured against."""


class TriangleTree:
    """The triangles of a mesh, arranged so that the one nearest to a point is found quickly.

    Measured are the triangles whose centroids are nearest. A large triangle can be near though its centroid is far,
    so triangles are sorted by size, and of each size as many are measured. A distance is that to some point of the
    mesh, so never too small.

    Args:
        mesh: at least one face.
    """

    def __init__(self, mesh: Mesh):
        triangles = mesh.vertices[mesh.faces].double().numpy()
        centroid = triangles.mean(axis=1)
        radius = np.linalg.norm(triangles - centroid[:, None], axis=-1).max(axis=-1)
        typical = max(float(np.median(radius)), np.finfo(float).tiny)
        octave = np.ceil(np.log2(np.maximum(radius / typical, 1)))
        groups = [np.flatnonzero(octave == size) for size in np.unique(octave)]
        self._groups = [(rows, triangles[rows], radius[rows], KDTree(centroid[rows])) for rows in groups]

    def nearest(self, points: Float[Tensor, "P 3"]) -> tuple[Float64[Tensor, "P"], Int[Tensor, "P"]]:
        """[P] distances from points to the mesh and [P] rows of the faces that are nearest."""
        place = points.detach().double().cpu().numpy()
        distance, face = np.full(len(place), np.inf), np.zeros(len(place), dtype=np.int64)
        for rows, triangles, radius, tree in self._groups:
            k = min(CANDIDATES, tree.n)
            for part in np.array_split(np.arange(len(place)), max(1, -(-len(place) * k // PAIRS))):
                away, row = (found.reshape(-1, k) for found in tree.query(place[part], k=k, workers=-1))
                found = np.full(away.shape, np.inf)
                found[:, 0] = _distance(triangles[row[:, 0]], place[part])
                # Of the others, those that can be nearer than the first and than what other groups have.
                reach = np.minimum(found[:, 0], distance[part])[:, None]
                point, column = np.nonzero((away - radius[row] < reach) & (np.arange(k) > 0))
                found[point, column] = _distance(triangles[row[point, column]], place[part][point])
                best = found.argmin(axis=1)[:, None]
                found, row = np.take_along_axis(found, best, 1)[:, 0], np.take_along_axis(row, best, 1)[:, 0]
                is_closer = found < distance[part]
                distance[part[is_closer]], face[part[is_closer]] = found[is_closer], rows[row[is_closer]]
        return torch.from_numpy(distance), torch.from_numpy(face)


def _distance(triangles: Float64[np.ndarray, "N 3 3"], points: Float64[np.ndarray, "N 3"]) -> Float64[np.ndarray, "N"]:
    """Distances between triangles and points, pair by pair."""
    return np.linalg.norm(trimesh.triangles.closest_point(triangles, points) - points, axis=-1)


def draw_points(mesh: Mesh, n: int, seed: int) -> tuple[Float64[Tensor, "n 3"], Int[Tensor, "n"]]:
    """Random points on a mesh, even by area, hidden parts included, and the faces that they lie on.

    Raises:
        ValueError: the mesh has no area.
    """
    generator = torch.Generator().manual_seed(seed)
    a, b, c = mesh.vertices[mesh.faces].double().unbind(dim=1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    if not area.sum() > 0:
        raise ValueError(f"the {len(area)} triangles of the mesh have no area, so no points can be drawn on them")
    # multinomial takes at most 2^24 categories; the inverse of the cumulative area takes any number.
    height = torch.rand(n, generator=generator, dtype=torch.float64) * area.sum()
    face = torch.searchsorted(area.cumsum(0), height).clamp(max=len(area) - 1)
    # The square root spreads evenly what would crowd at corner a.
    root, share = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
    root = root.sqrt()
    return (1 - root) * a[face] + root * (1 - share) * b[face] + root * share * c[face], face


def face_normals(mesh: Mesh) -> Float[Tensor, "F 3"]:
    """[F, 3] unit normals of the triangles, outward; 0 for triangles without area."""
    a, b, c = mesh.vertices[mesh.faces].unbind(dim=1)
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-30)
