"""Similarities: a rotation, one scale and a translation as a homogeneous matrix in double precision."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

IDENTITY = torch.eye(4, dtype=torch.float64)
Z_TO_Y_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
"""Turns z to the y that is up in glTF."""


def scale_of(similarity: Float64[Tensor, "4 4"]) -> float:
    """The factor by which lengths grow."""
    return float(torch.linalg.det(similarity[:3, :3]).pow(1 / 3))


def rotation_of(similarity: Float64[Tensor, "4 4"]) -> Float64[Tensor, "3 3"]:
    """How directions turn."""
    return similarity[:3, :3] / scale_of(similarity)


def carried(points: Float[Tensor, "N 3"], similarity: Float64[Tensor, "4 4"]) -> Float64[Tensor, "N 3"]:
    """Where points come to lie."""
    return points.double() @ similarity[:3, :3].T + similarity[:3, 3]
