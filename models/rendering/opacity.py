"""How much light an interval stops, from what its midpoint says."""

import torch
from jaxtyping import Float
from torch import Tensor

from models import ops
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


def neus_alpha(
    sdf: Float[Tensor, "N"],
    slope: Float[Tensor, "N"],
    width: Float[Tensor, "N"],
    sharpness: Float[Tensor, ""],
    backend: Backend = "auto",
) -> Float[Tensor, "N"]:
    """Opacity of an interval whose midpoint has signed distance `sdf`.

    Linearises the distance along the ray, so it is exact where the surface is flat at the scale of `width`
    (Wang et al. 2021, NeuS, eq. 13).

    Args:
        sdf: [N] signed distance at midpoints, world units, negative inside.
        slope: [N] derivative of the distance along the ray, never positive.
        width: [N] interval lengths, world units.
        sharpness: scalar, inverse world units; grows as training converges.
    """
    return ops.neus_alpha(sdf, slope, width, sharpness, backend=backend)
