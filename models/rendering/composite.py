"""From samples to pixels: weights and weighted sums along rays."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models import ops
from models.ops.dispatch import Backend
from utils.types import Samples


@dataclass
class Composite:
    """Weighted sums along R rays.

    Attributes:
        weights: [N] share of the ray's light stopped by each sample.
        opacity: [R] their sum.
        depth: [R] mean distance of what was hit, 0 where nothing was.
        sums: one [R, C] per channel group handed in.
    """

    weights: Float[Tensor, "N"]
    opacity: Float[Tensor, "R"]
    depth: Float[Tensor, "R"]
    sums: list[Float[Tensor, "R _"]]


def composite(
    samples: Samples, alpha: Float[Tensor, "N"], *channels: Float[Tensor, "N _"], backend: Backend = "auto"
) -> Composite:
    """Front-to-back compositing (Max 1995): w_i = alpha_i prod_{j<i} (1 - alpha_j).

    Depth is divided by the opacity, so that it stays right where an object is half transparent.
    """
    fixed = torch.stack([torch.ones_like(samples.t), samples.t])
    values = torch.cat([fixed, *(channel.T for channel in channels)])
    weights, sums = ops.composite(alpha, values, samples.offsets, backend=backend)
    opacity, distance = sums[0], sums[1]
    groups = torch.split(sums[2:], [channel.shape[1] for channel in channels])
    depth = distance / opacity.clamp_min(1e-6)
    return Composite(weights, opacity, depth, [group.T for group in groups])
