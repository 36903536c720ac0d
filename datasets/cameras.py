"""Cameras with their lenses.

A camera looks along its own -z axis, x points right and y up (OpenGL, Blender). Pixel (u, v) counts columns
from the left and rows from the top; its centre lies at (u + 0.5, v + 0.5).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.lenses import Lens, distort, undistort
from utils.types import Record

SAME_DIRECTION = 1e-3
"""Radians between a direction and the ray of the pixel it was projected to."""


@dataclass
class Cameras(Record):
    """One camera per view.

    Attributes:
        pose: [V, 3, 4] camera to world, rigid.
        focal: [V, 2] focal lengths in pixels, horizontal and vertical.
        center: [V, 2] principal points in pixels from the upper left corner of the image.
        size: [V, 2] width and height of the images in pixels.
        distortion: [V, 8] coefficients of the lenses as in `datasets.lenses.Lens`, or None where all are pinholes.
        is_fisheye: [V] which lenses are fisheyes, or None where none is.
    """

    pose: Float[Tensor, "V 3 4"]
    focal: Float[Tensor, "V 2"]
    center: Float[Tensor, "V 2"]
    size: Int[Tensor, "V 2"]
    distortion: Float[Tensor, "V 8"] | None = None
    is_fisheye: Bool[Tensor, "V"] | None = None

    def __len__(self) -> int:
        return self.pose.shape[0]

    @classmethod
    def with_lenses(cls, pose: Float[Tensor, "V 3 4"], lenses: list[Lens], size: Int[Tensor, "V 2"]) -> "Cameras":
        """Cameras with the given lenses; poses and sizes as above."""
        distorts, is_fisheye = any(lens.distorts for lens in lenses), [lens.is_fisheye for lens in lenses]
        return cls(
            pose=pose,
            focal=torch.stack([lens.focal for lens in lenses]),
            center=torch.stack([lens.center for lens in lenses]),
            size=size,
            distortion=torch.stack([lens.distortion for lens in lenses]) if distorts else None,
            is_fisheye=torch.tensor(is_fisheye) if any(is_fisheye) else None,
        )

    def resized(self, size: Int[Tensor, "V 2"]) -> "Cameras":
        """The same cameras with images of other sizes, width and height in pixels."""
        ratio = size / self.size
        return replace(self, focal=ratio * self.focal, center=ratio * self.center, size=size)

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
        if self.distortion is not None:
            right, down, ahead = undistort(offset, *self._lens(view)).split(1, dim=-1)
            return pose[:, :, 3].contiguous(), right * pose[:, :, 0] - down * pose[:, :, 1] - ahead * pose[:, :, 2]
        right, down = offset[:, :1], offset[:, 1:]
        direction = right * pose[:, :, 0] - down * pose[:, :, 1] - pose[:, :, 2]
        # A rotation keeps lengths, so the length in the camera's frame will do.
        return pose[:, :, 3].contiguous(), direction * torch.rsqrt(right * right + down * down + 1)

    @property
    def footprint(self) -> Float[Tensor, "V"]:
        """Radius of the cone of a pixel at distance 1, world units: the disc has the variance of the pixel, whose sides
        are averaged (Barron et al. 2021, mip-NeRF, sec. 3.1). At the principal point; distortion has no part."""
        return (1 / self.focal).sum(-1) / math.sqrt(12)

    def project(
        self, view: Int[Tensor, "R"], points: Float[Tensor, "R 3"]
    ) -> tuple[Float[Tensor, "R 2"], Float[Tensor, "R"]]:
        """Where cameras see world points.

        Args:
            view: [R] rows of the cameras.
            points: [R, 3] world coordinates.

        Returns:
            [R, 2] continuous pixel coordinates, within or outside of the image, infinite where no ray of the lens
            meets the point; [R] depths along the optical axis, negative behind the camera.
        """
        center, focal, pose = (part.index_select(0, view) for part in (self.center, self.focal, self.pose))
        local = ((points - pose[:, :, 3])[:, None] @ pose[:, :, :3])[:, 0]
        local = local * local.new_tensor([1, -1, -1])  # OpenCV's frame
        depth = local[:, 2]
        if self.distortion is None:
            place, is_seen = local[:, :2] / depth[:, None], depth > 0
        else:
            place, is_seen = self._distorted(view, local)
        return torch.where(is_seen[:, None], focal * place + center, torch.inf), depth

    def unreached(self, n_places: int = 24) -> Float[Tensor, "V"]:
        """Shares of the images that the models of their lenses do not reach, measured on a grid of pixels."""
        steps = torch.linspace(0, 1, n_places, device=self.size.device)
        grid = torch.cartesian_prod(steps, steps)  # [n_places^2, 2]
        pixel = (grid * (self.size[:, None] - 1)).long().view(-1, 2)
        view = torch.arange(len(self), device=pixel.device).repeat_interleave(len(grid))
        origins, directions = self.rays(view, pixel)
        again, _ = self.project(view, origins + directions)
        is_reached = (again - pixel - 0.5).abs().amax(-1) < 0.5
        return 1 - is_reached.view(len(self), -1).float().mean(-1)

    def _distorted(self, view: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Places in the normalised image plane, and whether a ray leads from them to the point.

        Models of lenses are polynomials, which far outside of the image fold over: without this check, points at
        the side of a camera would appear in its image.
        """
        lens = self._lens(view)
        place = distort(local, *lens)
        direction = torch.nn.functional.normalize(local, dim=-1)
        return place, (undistort(place, *lens) - direction).norm(dim=-1) < SAME_DIRECTION

    def _lens(self, view: Tensor) -> tuple[Tensor, Tensor | None]:
        assert self.distortion is not None
        is_fisheye = None if self.is_fisheye is None else self.is_fisheye.index_select(0, view)
        return self.distortion.index_select(0, view), is_fisheye
