"""How close a reconstruction is to the truth: pure functions of the distances and angles between points of both.

Those that have a parameter `threshold`, a length, are computed for each of several.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from systems import geometry_metrics


@dataclass
class Deviation:
    """What was measured at points of both surfaces; lengths in the units of the surfaces.

    Attributes:
        to_truth: [N] distances from points of the reconstruction to the truth.
        from_truth: [P] distances from points of the truth to the reconstruction.
        cosine_to_truth: [N] cosines, without their sign, between normals there and where the truth is nearest.
        cosine_from_truth: [P] the same at points of the truth.
    """

    to_truth: Float[Tensor, "N"]
    from_truth: Float[Tensor, "P"]
    cosine_to_truth: Float[Tensor, "N"]
    cosine_from_truth: Float[Tensor, "P"]


@geometry_metrics.register("accuracy")
def accuracy(deviation: Deviation) -> float:
    """Mean distance from the reconstruction to the truth, a length."""
    return deviation.to_truth.mean().item()


@geometry_metrics.register("completeness")
def completeness(deviation: Deviation) -> float:
    """Mean distance from the truth to the reconstruction, a length."""
    return deviation.from_truth.mean().item()


@geometry_metrics.register("chamfer")
def chamfer(deviation: Deviation) -> float:
    """Chamfer L1 distance: the mean of accuracy and completeness, of unsquared distances, a length."""
    return (accuracy(deviation) + completeness(deviation)) / 2


@geometry_metrics.register("normal_consistency")
def normal_consistency(deviation: Deviation) -> float:
    """Mean absolute cosine between normals of both surfaces, the mean of both directions, in [0, 1]."""
    return (deviation.cosine_to_truth.mean().item() + deviation.cosine_from_truth.mean().item()) / 2


@geometry_metrics.register("precision")
def precision(deviation: Deviation, threshold: float) -> float:
    """Share of the reconstruction within a threshold of the truth, in [0, 1]."""
    return (deviation.to_truth <= threshold).double().mean().item()


@geometry_metrics.register("recall")
def recall(deviation: Deviation, threshold: float) -> float:
    """Share of the truth within a threshold of the reconstruction, in [0, 1]."""
    return (deviation.from_truth <= threshold).double().mean().item()


@geometry_metrics.register("f_score")
def f_score(deviation: Deviation, threshold: float) -> float:
    """Harmonic mean of precision and recall (Knapitsch et al. 2017), in [0, 1]."""
    both = precision(deviation, threshold), recall(deviation, threshold)
    return 2 * both[0] * both[1] / sum(both) if sum(both) else 0.0
