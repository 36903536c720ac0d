"""How far a mesh is from the true surface.

Accuracy asks how far points of the mesh are from the surface, completeness how far points of the surface are from
the mesh; both are means of unsquared distances, and their mean is the Chamfer distance. Points are drawn evenly by
area, hidden parts included. Distances are to the triangles, not to points drawn on them.
"""

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from utils.types import Mesh, Surface

PAIRS = 2**20
"""Most pairs of a point and a triangle that are measured at once."""
CANDIDATES = 16
"""Triangles of similar size that one point is measured against."""


def geometry_error(mesh: Mesh, surface: Surface, n_points: int = 100_000, seed: int = 0) -> dict[str, float]:
    """Distances between a mesh and the true surface.

    Args:
        mesh: at least one face.
        surface: the truth; all its points are used.
        n_points: points drawn on the mesh.
        seed: of that draw.

    Returns:
        `accuracy` (mesh to surface), `completeness` (surface to mesh) and `chamfer` (their mean) in world units; the
        same with `_percent`, of the surface's diameter; `f_score_half_percent` and `f_score_one_percent`, in [0, 1]:
        harmonic mean of the shares of points within half a percent, one percent, of the diameter (Knapitsch et al.
        2017).
    """
    accuracy = surface.distance(sample_surface(mesh, n_points, seed)).double().cpu()
    completeness = distance_to_mesh(surface.points.cpu(), mesh)
    mean = {"accuracy": float(accuracy.mean()), "completeness": float(completeness.mean())}
    mean["chamfer"] = (mean["accuracy"] + mean["completeness"]) / 2
    return {
        **mean,
        **{f"{name}_percent": 100 * value / surface.diameter for name, value in mean.items()},
        "f_score_half_percent": _f_score(accuracy, completeness, 0.005 * surface.diameter),
        "f_score_one_percent": _f_score(accuracy, completeness, 0.01 * surface.diameter),
    }


def sample_surface(mesh: Mesh, n: int, seed: int) -> Float[Tensor, "n 3"]:
    """Random points on a mesh, uniform by area, world units."""
    generator = torch.Generator().manual_seed(seed)
    corner = mesh.vertices[mesh.faces].double()
    a, b, c = corner.unbind(dim=1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    # multinomial takes at most 2^24 categories; the inverse of the cumulative area takes any number.
    height = torch.rand(n, generator=generator, dtype=torch.float64) * area.sum()
    face = torch.searchsorted(area.cumsum(0), height).clamp(max=len(area) - 1)
    # The square root spreads evenly what would crowd at corner a.
    root, share = torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
    root = root.sqrt()
    return ((1 - root) * a[face] + root * (1 - share) * b[face] + root * share * c[face]).float()


def distance_to_mesh(points: Float[Tensor, "P 3"], mesh: Mesh) -> Float[Tensor, "P"]:
    """[P] distances, float64, from points to the nearest triangle of a mesh.

    Measured are the triangles whose centroids are nearest. A large triangle can be near though its centroid is far,
    so triangles are sorted by size, and of each size as many are measured.
    """
    place = points.double().numpy()
    triangles = mesh.vertices[mesh.faces].double().numpy()
    centroid = triangles.mean(axis=1)
    radius = np.linalg.norm(triangles - centroid[:, None], axis=-1).max(axis=-1)
    typical = max(float(np.median(radius)), np.finfo(float).tiny)
    octave = np.ceil(np.log2(np.maximum(radius / typical, 1)))

    best = np.full(len(place), np.inf)
    for size in np.unique(octave):
        chosen = octave == size
        members, tree = triangles[chosen], KDTree(centroid[chosen])
        k = min(CANDIDATES, tree.n)
        for part in np.array_split(np.arange(len(place)), -(-len(place) * k // PAIRS)):
            _, row = tree.query(place[part], k=k, workers=-1)
            asked = place[part].repeat(k, axis=0)
            closest = trimesh.triangles.closest_point(members[row.ravel()], asked)
            distance = np.linalg.norm(closest - asked, axis=-1).reshape(-1, k)
            best[part] = np.minimum(best[part], distance.min(axis=1))
    return torch.from_numpy(best)


def _f_score(accuracy: Float[Tensor, "N"], completeness: Float[Tensor, "P"], threshold: float) -> float:
    precision = float((accuracy <= threshold).double().mean())
    recall = float((completeness <= threshold).double().mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
