"""Maps between world space and the unit cube that encodings and occupancy grids live in.

`box`: the cube of half side `radius` around the origin fills the unit cube.
`sphere`: all of space. The ball of that radius keeps its shape in the central half of the unit cube, what lies
outside is pulled into the shell around it (Barron et al. 2022, mip-NeRF 360, eq. 10).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Contraction = Literal["box", "sphere"]


def contract(points: Float[Tensor, "*B 3"], radius: float, kind: Contraction) -> Float[Tensor, "*B 3"]:
    """World points in the unit cube; with `box`, points outside the cube leave [0, 1]."""
    if kind == "box":
        return points / (2 * radius) + 0.5
    scaled = points / radius
    norm = scaled.norm(dim=-1, keepdim=True).clamp_min(1)
    return scaled * ((2 - 1 / norm) / norm) / 4 + 0.5


def expand(unit: Float[Tensor, "N 3"], radius: float, kind: Contraction) -> Float[Tensor, "N 3"]:
    """World points of points in the unit cube, the inverse of `contract`.

    With `sphere`, points on or beyond the outermost sphere stand for infinity; they are brought to 1000 radii.
    """
    if kind == "box":
        return (unit - 0.5) * (2 * radius)
    pulled = (unit - 0.5) * 4
    norm = pulled.norm(dim=-1, keepdim=True)
    far = 1 / (2 - norm).clamp_min(1e-3)
    return radius * torch.where(norm > 1, pulled / norm.clamp_min(1e-9) * far, pulled)
