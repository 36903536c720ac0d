"""Sparse points of a scene, as structure from motion leaves them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from utils.types import Record


@dataclass
class SparsePoints(Record):
    """M points in scene coordinates and K observations of them in photographs.

    Attributes:
        position: [M, 3] scene coordinates.
        color: [M, 3] RGB, or None if unknown.
        error: [M] mean reprojection error in pixels of the original photographs, or None if unknown.
        view: [K] row of the camera that observed, among the cameras of the `Views` that hold these points.
        point: [K] row of the position that was observed.
        pixel: [K, 2] continuous place in the image, at the size at which it is used.
    """

    position: Float[Tensor, "M 3"]
    color: UInt8[Tensor, "M 3"] | None
    error: Float[Tensor, "M"] | None
    view: Int[Tensor, "K"]
    point: Int[Tensor, "K"]
    pixel: Float[Tensor, "K 2"]

    def __len__(self) -> int:
        return self.position.shape[0]

    @classmethod
    def unobserved(cls, position: Float[Tensor, "M 3"], color: UInt8[Tensor, "M 3"] | None = None) -> "SparsePoints":
        """Points of which no photograph is known to show them."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(position, color, None, none, none, torch.zeros(0, 2))
