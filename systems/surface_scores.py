"""What an exported surface is worth, where the truth is known."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from systems.export import Exported
from systems.geometry_error import geometry_error
from systems.mesh_rendering import texture_scores


def surface_scores(result: Exported, views: Views, backdrop: Float[Tensor, "3"]) -> dict[str, Any] | None:
    """How far the mesh is from the true surface, if that is known; the texture's report gets its scores.

    Args:
        result: of the export.
        views: to measure against, by their true surface and their photographs.
        backdrop: [3] colour in [0, 1] behind the textured mesh.
    """
    geometry = None
    if views.surface is not None:
        error = geometry_error(result.full, views.surface)
        geometry = {"truth": "the data set's surface", "units": "scene units"} | error
        print(
            f"surface: {error['accuracy_percent']:.3f} % of the diameter from the mesh to the true surface, "
            f"{error['completeness_percent']:.3f} % from there to the mesh, on average"
        )
    if views.is_real and result.textured is not None and result.texture is not None:
        scores = texture_scores(result.textured, views, backdrop)
        result.texture |= scores
        print("texture: " + ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in scores.items()))
    return geometry
