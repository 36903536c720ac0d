"""How a mesh agrees with what a capture knows of the surface besides colours: masks, and points of its cameras."""

import torch

from datasets.views import Views
from systems.mesh_rendering import visible
from utils.triangles import TriangleTree
from utils.types import Mesh

N_SCORED = 16
"""Most views whose masks are compared."""


def capture_agreement(mesh: Mesh, views: Views) -> dict[str, float]:
    """Scores of a mesh against masks and sparse points, as far as views have them.

    Args:
        mesh: scene coordinates, at least one face.
        views: held out, or the camera path.

    Returns:
        `silhouette_iou`, mean over views that are spread evenly, at most 16: pixels that mesh and mask both cover, as
        a share of those that either does. Of distances from the sparse points within the unit ball, where the object
        is, to the mesh: `points_median_percent` and `points_90_percent`, which 90 % are below, as shares of the
        ball's radius; their number `n_points`.
    """
    scores: dict[str, float] = {}
    if views.alpha is not None:
        rows = torch.linspace(0, len(views) - 1, min(len(views), N_SCORED)).round().int().tolist()
        scores["silhouette_iou"] = sum(_silhouette_iou(mesh, views, row) for row in rows) / len(rows)
    if views.points is not None:
        points = views.points.position
        points = points[points.norm(dim=-1) <= 1]
        if len(points):
            percent = 100 * TriangleTree(mesh).nearest(points)[0]
            scores["points_median_percent"] = percent.median().item()
            scores["points_90_percent"] = percent.quantile(0.9).item()
            scores["n_points"] = len(points)
    return scores


def _silhouette_iou(mesh: Mesh, views: Views, row: int) -> float:
    assert views.alpha is not None
    is_object = (views.picture(views.alpha, row) > 127).flatten().cpu()
    vertices, faces = (part.to(views.cameras.pose.device) for part in (mesh.vertices, mesh.faces))
    is_covered = torch.zeros_like(is_object)
    is_covered[visible(vertices, faces, views.cameras, row).pixel.cpu()] = True
    return ((is_object & is_covered).sum() / (is_object | is_covered).sum().clamp_min(1)).item()
