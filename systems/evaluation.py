"""Views rendered, scored against their photographs, and the scores of all devices brought together."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from models.base import Model
from systems.image_metrics import Metric
from systems.object_scores import object_scores
from systems.panels import Picture, view_panel

Scores = dict[tuple[str, int], dict[str, Any]]
"""Name and scores of views by split and row; a view without a photograph has its name alone."""


def evaluate(
    model: Model,
    views: Views,
    row: int,
    backdrop: Float[Tensor, "3"],
    chosen: dict[str, Metric],
    tell: Callable[[float], None] = lambda share: None,
) -> tuple[dict[str, Any], Picture]:
    """Scores and panel of one view.

    Args:
        model: up to date for the step it is at.
        views: of some split.
        row: of the view among them.
        backdrop: [3] colour in [0, 1] behind everything.
        chosen: metrics by name.
        tell: is told how much of the view is rendered, in [0, 1].
    """
    batch = views.image(row, backdrop)
    rendered = model.render(batch.rays, tell)
    width, height = views.size(row)
    scores: dict[str, Any] = {"view": views.names[row]}
    n_channels = rendered.color.shape[1]
    if n_channels != 3:
        # Features have no photograph to be compared with; people see the first three.
        rendered.color = torch.nn.functional.pad(rendered.color[:, :3], (0, max(0, 3 - n_channels)))
    elif batch.target.is_real:
        image, truth = (color.view(height, width, 3) for color in (rendered.color, batch.target.color))
        scores |= {name: metric(image, truth) for name, metric in chosen.items()}
        scores |= object_scores(rendered, batch.target, width, height)
    return scores, view_panel(rendered, batch.target, width, height)


def gathered(scores: Scores, world_size: int) -> Scores:
    """The scores that all processes of a run hold, in order; every process has to ask."""
    parts: list[Any] = [scores]
    if world_size > 1:
        parts = [None] * world_size
        torch.distributed.all_gather_object(parts, scores)
    return dict(sorted((place, score) for part in parts for place, score in part.items()))


def mean_scores(scores: Scores, split: str) -> dict[str, float | None]:
    """The mean of each score over the photographs of a split that have it; None where it was not computed."""
    means: dict[str, float | None] = {}
    names = dict.fromkeys(name for score in scores.values() for name in score if name != "view")
    for name in names:
        values = [score[name] for (one, _), score in scores.items() if one == split and name in score]
        if values:
            means[name] = None if None in values else sum(values) / len(values)
    return means


def summary(scores: Scores, split: str) -> dict[str, Any]:
    """Means and single scores of a split, as metrics.json holds them."""
    views = [score for (one, _), score in scores.items() if one == split]
    return {**mean_scores(scores, split), "n_views": len(views), "views": views}


def told(result: dict[str, Any]) -> str:
    """One line on the `summary` of a test against photographs."""
    perceptual = "not computed" if result["lpips"] is None else f"{result['lpips']:.4f}"
    return (
        f"test: PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.4f}, LPIPS {perceptual}, "
        f"mean of {result['n_views']} views"
    )
