"""How good an exported mesh is, by all that a data set knows of the surface."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from systems.capture_agreement import capture_agreement
from systems.export import Exported
from systems.geometry_error import geometry_error
from systems.mesh_rendering import texture_scores


def mesh_scores(exported: Exported, views: Views, backdrop: Float[Tensor, "3"]) -> dict[str, dict[str, Any]]:
    """Measures a mesh and tells the results.

    Args:
        exported: the mesh and its textured twin.
        views: to measure against, held out.
        backdrop: [3] colour in [0, 1] behind everything.

    Returns:
        Sections of metrics.json: `geometry`, distances to the true surface; `capture`, agreement with masks and sparse
        points; `texture`, its report and how close its pictures are to photographs. What is not known is missing.
    """
    sections: dict[str, dict[str, Any]] = {}
    if views.surface is not None:
        error = geometry_error(exported.full, views.surface)
        sections["geometry"] = {"truth": "the data set's surface", "units": "scene units"} | error
        print(
            f"surface: {error['accuracy_percent']:.3f} % of the diameter from the mesh to the true surface, "
            f"{error['completeness_percent']:.3f} % from there to the mesh, on average"
        )
    if agreement := capture_agreement(exported.full, views):
        sections["capture"] = agreement
        print("capture: " + _told(agreement))
    if views.is_real and exported.textured is not None and exported.texture is not None:
        scores = texture_scores(exported.textured, views, backdrop)
        sections["texture"] = exported.texture | scores
        print("texture: " + _told(scores))
    return sections


def _told(scores: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scores.items())
