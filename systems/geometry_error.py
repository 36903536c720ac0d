"""How far a mesh is from the true surface.

Distances are taken at points that are drawn on the mesh, evenly by area and hidden parts included unless others are
given, and at the points that the truth is known by. They are distances to triangles, not to points drawn on them,
wherever a surface has triangles.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from systems import geometry_metrics
from systems.surface_metrics import Deviation
from utils.point_clouds import fitted_normals
from utils.registry import ConfigError
from utils.triangles import TriangleTree, draw_points, face_normals
from utils.types import Mesh, Surface

N_POINTS = 100_000
THRESHOLDS = ("0.5%", "1%")
"""Of the diameter of the truth."""


@dataclass
class MeshPoints:
    """Points on a mesh at which it is measured.

    Attributes:
        position: [N, 3].
        face: [N] rows of the triangles that they lie on.
    """

    position: Float[Tensor, "N 3"]
    face: Int[Tensor, "N"]


def geometry_error(
    mesh: Mesh,
    truth: Surface,
    thresholds: Sequence[str] = THRESHOLDS,
    drawn: MeshPoints | None = None,
) -> dict[str, Any]:
    """Every registered geometry metric of a mesh.

    Args:
        mesh: at least one face.
        truth: in the coordinates of the mesh; all its points count.
        thresholds: see `threshold`.
        drawn: the points of the mesh that count; None draws 100,000 with seed 0.

    Returns:
        Metrics by name, lengths in the units of the coordinates; those at a threshold as `f_score@1%`; lengths also as
        shares of the truth's diameter, `chamfer_percent`; and what they were computed from.
    """
    found = deviation(mesh, truth, MeshPoints(*draw_points(mesh, N_POINTS, seed=0)) if drawn is None else drawn)
    lengths = {word: threshold(word, truth.diameter) for word in thresholds}
    result: dict[str, Any] = {}
    for name, metric in ((name, geometry_metrics.get(name)) for name in geometry_metrics.names()):
        if "threshold" in inspect.signature(metric).parameters:
            result |= {f"{name}@{word}": metric(found, length) for word, length in lengths.items()}
        else:
            result[name] = metric(found)
    for name in ("accuracy", "completeness", "chamfer"):
        result[f"{name}_percent"] = 100 * result[name] / truth.diameter
    return result | {
        "thresholds": lengths,
        "diameter": truth.diameter,
        "truth_spacing": truth.spacing,
        "n_points": len(found.to_truth),
        "n_truth_points": len(found.from_truth),
    }


def deviation(mesh: Mesh, truth: Surface, drawn: MeshPoints) -> Deviation:
    """Distances and angles between points of a mesh and the truth."""
    normals, true_points = face_normals(mesh).double(), truth.points.double().cpu()
    true_normals = fitted_normals(true_points) if truth.normals is None else truth.normals.double().cpu()
    from_truth, face = TriangleTree(mesh).nearest(true_points)
    nearest = torch.from_numpy(KDTree(true_points.numpy()).query(drawn.position.numpy(), workers=-1)[1])
    return Deviation(
        truth.distance(drawn.position),
        from_truth,
        (normals[drawn.face] * true_normals[nearest]).sum(-1).abs(),
        (true_normals * normals[face]).sum(-1).abs(),
    )


def threshold(word: str, diameter: float) -> float:
    """The length that a word means: a number in the units of the coordinates, or percents of the truth's diameter.

    Raises:
        ConfigError: it is neither, or not positive.
    """
    number, share = (word[:-1], diameter / 100) if word.endswith("%") else (word, 1.0)
    try:
        length = float(number) * share
    except ValueError:
        length = math.nan
    if not (length > 0 and math.isfinite(length)):
        raise ConfigError(f"threshold {word}: expected a positive length such as 0.01, or 1% of the truth's diameter")
    return length
