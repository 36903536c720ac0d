"""Losses of geometry that the data knows besides its colours: sparse points, depth maps, normal maps.

Maps are compared where they know something and rays met anything. Every ray counts by its opacity, without gradient:
the depth of thin haze means little and has gradients without bound.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.views import Views
from systems.loss_functions import loss
from utils.geometry import length
from utils.types import Rendered, Target

DATA = frozenset({"mask", "true depth", "true normal", "sparse points"})
"""Quantities that only a data set can give to losses."""


def given_by(views: Views) -> frozenset[str]:
    """Those of them that these views give."""
    parts = {"mask": views.alpha, "true depth": views.depth, "true normal": views.normal, "sparse points": views.points}
    return frozenset(name for name, part in parts.items() if part is not None)


@loss("sparse_points", "distance", "sparse points")
def sparse_points(rendered: Rendered, target: Target, sparse_points_width: float = 0.1) -> Float[Tensor, ""]:
    """Mean of w ln(1 + |f| / w) at sparse points that photographs show: |f| (Fu et al. 2022, Geo-NeuS, eq. 9) near the
    surface, less and less beyond a width of w world units, where points are rather wrong."""
    assert rendered.at_points is not None
    return (sparse_points_width * torch.log1p(rendered.at_points.abs() / sparse_points_width)).mean()


@loss("depth", "true depth")
def depth(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean absolute error of depth where it is known, world units; for maps in the units of the cameras."""
    assert target.depth is not None
    is_known = target.depth > 0
    error = (rendered.depth - target.depth).abs()
    return (_say(rendered, is_known) * error).sum() / is_known.sum().clamp_min(1)


@loss("depth_ssi", "true depth")
def depth_ssi(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Squared error of depth after the scale and the shift that fit each photograph best (Yu et al. 2022, MonoSDF,
    eq. 13), as a share of the variance of its map, in [0, 1]; for maps of unknown unit, as networks guess them."""
    assert target.depth is not None
    weight = _say(rendered, target.depth > 0)
    row = _ranks(weight.new_zeros(len(weight), dtype=torch.int64) if target.view is None else target.view)
    # Shifts are along the optical axis, where networks measure.
    cosine = 1 if target.cosine is None else target.cosine

    def total(values: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
        """Weighted sum over each photograph."""
        return torch.zeros_like(values).index_add(0, row, weight * values)

    mass = total(torch.ones_like(weight))
    seen, truth = (
        values - (total(values) / mass.clamp_min(1e-9))[row]
        for values in (rendered.depth * cosine, target.depth * cosine)
    )
    # Where it fits best, the error does not change with the scale, so that needs no gradient. What is near is not far:
    # negative scales are none.
    fit = (total(seen * truth) / total(seen.square()).clamp_min(1e-12)).detach().clamp_min(0)
    share = total((fit[row] * seen - truth).square()) / total(truth.square()).clamp_min(1e-12)
    return (mass * share).sum() / mass.sum().clamp_min(1e-9)


@loss("normal", "normal", "true normal")
def normal(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean of |n - n'|_1 + |1 - n.n'| where normals are known (Yu et al. 2022, MonoSDF, eq. 14)."""
    assert rendered.normal is not None and target.normal is not None
    is_known = length(target.normal) > 0.5
    angular = (1 - (rendered.normal * target.normal).sum(-1)).abs()
    error = (rendered.normal - target.normal).abs().sum(-1) + angular
    return (_say(rendered, is_known) * error).sum() / is_known.sum().clamp_min(1)


def _say(rendered: Rendered, is_known: Bool[Tensor, "R"]) -> Float[Tensor, "R"]:
    """What each ray counts for."""
    return rendered.opacity.detach() * (is_known & rendered.is_hit)


def _ranks(view: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
    """Numbers below R that are the same where `view` is; a GPU is not waited for."""
    ordered, place = view.sort()
    rank = torch.nn.functional.pad((ordered.diff() != 0).long(), (1, 0)).cumsum(0)
    return torch.empty_like(rank).scatter_(0, place, rank)
