"""How much light an interval stops, from what its midpoint says.

Distance fields become opaque by a law that YAML chooses. All laws share one learnt number, the sharpness s: NeuS' s is
the inverse scale of a logistic distribution, VolSDF's 1 / beta that of a Laplace distribution. With both, a ray that
goes straight in keeps exp(-s d) of its light d units below the surface, so whatever follows s (occupied cells, length
of steps) serves both.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models import opacities, ops
from models.ops.dispatch import Backend


def density_alpha(density: Float[Tensor, "N"], width: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Opacity 1 - exp(-density * width) of an interval of even density (Max 1995)."""
    return 1 - torch.exp(-density * width)


def annealed_slope(cosine: Float[Tensor, "N"], progress: float) -> Float[Tensor, "N"]:
    """Derivative of the distance along the ray, never positive: NeuS counts entering surfaces only.

    Early in training (`progress` 0) rays that leave a surface are let in as half, which helps the field to find its
    topology; at 1 the slope is min(cosine, 0) (Wang et al. 2021, NeuS, official implementation).

    Args:
        cosine: [N] dot product of ray direction and unit normal.
        progress: annealing in [0, 1].
    """
    return -((1 - progress) * torch.relu(0.5 - 0.5 * cosine) + progress * torch.relu(-cosine))


class OpacityLaw(ABC):
    """How a signed distance becomes an opacity."""

    @abstractmethod
    def __call__(
        self,
        sdf: Float[Tensor, "N"],
        slope: Float[Tensor, "N"],
        width: Float[Tensor, "N"],
        sharpness: Float[Tensor, ""],
        backend: Backend = "auto",
    ) -> Float[Tensor, "N"]:
        """Opacity of intervals, in [0, 1].

        Args:
            sdf: [N] signed distance at midpoints, world units, negative inside.
            slope: [N] derivative of the distance along the ray, never positive.
            width: [N] interval lengths, world units.
            sharpness: scalar, inverse world units; grows as training converges.
        """


@opacities.register("neus")
class NeusOpacity(OpacityLaw):
    """Unbiased at first order: the weight along a ray peaks where the distance is zero, at any angle.

    Linearises the distance along the ray, so it is exact where the surface is flat at the scale of the interval
    (Wang et al. 2021, NeuS, eq. 13).
    """

    @dataclass
    class Config:
        pass

    def __init__(self, config: "NeusOpacity.Config"):
        pass

    def __call__(
        self,
        sdf: Float[Tensor, "N"],
        slope: Float[Tensor, "N"],
        width: Float[Tensor, "N"],
        sharpness: Float[Tensor, ""],
        backend: Backend = "auto",
    ) -> Float[Tensor, "N"]:
        return ops.neus_alpha(sdf, slope, width, sharpness, backend=backend)


@opacities.register("volsdf")
class VolsdfOpacity(OpacityLaw):
    """A density of 1 / beta inside that fades outwards as the Laplace distribution's CDF (Yariv et al. 2021, eq. 2, 3).

    beta = 1 / s = exp(-10 v) with the variance v of the model, which learns it: `variance.init_val: 0.23` begins at the
    paper's beta of 0.1. What leaves a surface is as opaque as what enters it.
    """

    @dataclass
    class Config:
        pass

    def __init__(self, config: "VolsdfOpacity.Config"):
        pass

    def __call__(
        self,
        sdf: Float[Tensor, "N"],
        slope: Float[Tensor, "N"],
        width: Float[Tensor, "N"],
        sharpness: Float[Tensor, ""],
        backend: Backend = "auto",
    ) -> Float[Tensor, "N"]:
        cdf = 0.5 + 0.5 * sdf.sign() * torch.expm1(-sdf.abs() * sharpness)
        return density_alpha(sharpness * cdf, width)
