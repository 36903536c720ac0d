"""Pinhole cameras.

A camera looks along its own -z axis, x points right and y up (OpenGL, Blender). Pixel (u, v) counts columns
from the left and rows from the top; its centre lies at (u + 0.5, v + 0.5).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.types import Record


@dataclass
class Cameras(Record):
    """One pinhole camera per view.

    Attributes:
        pose: [V, 3, 4] camera to world, rigid.
        focal: [V, 2] focal lengths in pixels, horizontal and vertical.
        center: [V, 2] principal points in pixels from the upper left corner of the image.
        size: [V, 2] width and height of the images in pixels.
    """

    pose: Float[Tensor, "V 3 4"]
    focal: Float[Tensor, "V 2"]
    center: Float[Tensor, "V 2"]
    size: Int[Tensor, "V 2"]

    def __len__(self) -> int:
        return self.pose.shape[0]

    def rays(
        self, view: Int[Tensor, "R"], pixel: Int[Tensor, "R 2"]
    ) -> tuple[Float[Tensor, "R 3"], Float[Tensor, "R 3"]]:
        """World origins and unit directions of the rays through the centres of pixels.

        Args:
            view: [R] rows of the cameras.
            pixel: [R, 2] columns and rows.
        """
        # index_select: several times faster here than indexing with brackets.
        center, focal, pose = (part.index_select(0, view) for part in (self.center, self.focal, self.pose))
        offset = (pixel + 0.5 - center) / focal
        right, down = offset[:, :1], offset[:, 1:]
        direction = right * pose[:, :, 0] - down * pose[:, :, 1] - pose[:, :, 2]
        # A rotation keeps lengths, so the length in the camera's frame will do.
        return pose[:, :, 3].contiguous(), direction * torch.rsqrt(right * right + down * down + 1)
