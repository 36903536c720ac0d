"""Which pixels triangles cover, and which triangle is nearest there.

Pixel (c, r) has its centre at (c + 1/2, r + 1/2), x to the right and y down; its flat index is r * width + c. A centre
on an edge belongs to both triangles: seen from either, the areas that decide differ in sign alone, so no tolerance is
needed and no pixel falls between them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.types import Record

PAIRS = 2**18
"""Pairs of a triangle and a pixel that are tested at once: few enough for a cache, and for memory that is reused."""
BAND = 2**20
"""Pixels of a band of rows; a single triangle may have as many pairs."""


@dataclass
class Fragments(Record):
    """Pairs of a triangle and a pixel whose centre it covers.

    Attributes:
        pixel: [N] flat index.
        face: [N] row of the triangle.
        weight: [N, 3] shares of its corners, which sum to 1.
    """

    pixel: Int[Tensor, "N"]
    face: Int[Tensor, "N"]
    weight: Float[Tensor, "N 3"]

    def __len__(self) -> int:
        return self.pixel.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Fragments":
        return self.map(lambda tensor: tensor[rows])

    def interpolate(self, values: Float[Tensor, "V C"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "N C"]:
        """Values of vertices at the fragments of their triangles."""
        corner = faces.index_select(0, self.face).flatten()
        return (self.weight[:, :, None] * values.index_select(0, corner).view(len(self), 3, -1)).sum(dim=1)


def fragments(corner: Float[Tensor, "F 3 2"], width: int, height: int) -> Iterator[Fragments]:
    """What triangles cover of an image, from top to bottom, a limited number of pairs at a time.

    Args:
        corner: [F, 3, 2] finite, in pixels, within or outside of the image; whatever the winding.
        width, height: of the image in pixels.
    """
    step = max(1, BAND // width)
    for top in range(0, height, step):
        yield from _band(corner, width, top, min(top + step, height))


def nearest(corner: Float[Tensor, "F 3 2"], depth: Float[Tensor, "F 3"], width: int, height: int) -> Fragments:
    """What a camera sees (z-buffer): at most one fragment a pixel, with weights on the triangle in space.

    Args:
        corner: as for `fragments`.
        depth: [F, 3] of the corners along the optical axis, positive.
        width, height: of the image in pixels.
    """
    inverse = 1 / depth  # linear in the image
    closest = inverse.new_zeros(width * height)
    owner = torch.full((width * height,), -1, device=corner.device)
    for part in fragments(corner, width, height):
        value = (part.weight * inverse.index_select(0, part.face)).sum(dim=-1)
        closest.scatter_reduce_(0, part.pixel, value, "amax")
        wins = (value == closest.index_select(0, part.pixel)).nonzero()[:, 0]
        owner[part.pixel.index_select(0, wins)] = part.face.index_select(0, wins)

    pixel = (owner >= 0).nonzero()[:, 0]
    face = owner.index_select(0, pixel)
    place = corner.index_select(0, face).flatten(1).T  # [6, N]
    area = torch.stack(_areas(place, pixel % width + 0.5, pixel // width + 0.5), dim=-1)
    share = area * inverse.index_select(0, face)
    return Fragments(pixel, face, share / share.sum(dim=-1, keepdim=True))


def nearest_faces(
    pixel: Float[Tensor, "V 2"], depth: Float[Tensor, "V"], faces: Int[Tensor, "F 3"], width: int, height: int
) -> Fragments:
    """What a camera sees of a mesh whose vertices it projects: see `nearest`.

    Faces with a corner behind the camera, or out of reach of its lens, are not seen.

    Args:
        pixel: [V, 2] infinite or NaN where the lens does not reach.
        depth: [V] along the optical axis, negative behind the camera.
        faces: [F, 3] rows of the vertices, which the fragments' `face` counts.
        width, height: of the image in pixels.
    """
    whole = ((depth > 0) & pixel.isfinite().all(dim=-1))[faces].all(dim=-1).nonzero()[:, 0]
    corner = faces[whole]
    seen = nearest(pixel[corner], depth[corner], width, height)
    return Fragments(seen.pixel, whole[seen.face], seen.weight)


def _band(corner: Float[Tensor, "F 3 2"], width: int, top: int, bottom: int) -> Iterator[Fragments]:
    """Fragments of the rows from `top` to before `bottom`."""
    first, end = corner.new_tensor([0, top]), corner.new_tensor([width, bottom])
    # Clamped as numbers: corners far outside of the image are no integers that a tensor could hold.
    lower = (corner.amin(dim=1) - 0.5).ceil().clamp(first, end).long()
    extent = (corner.amax(dim=1) + 0.5).floor().clamp(first, end).long() - lower  # [F, 2]
    n_pairs = extent.clamp(min=0).prod(dim=1)
    # Component by component: gathers from contiguous rows take half the time.
    coordinates, box = corner.flatten(1).T.contiguous(), torch.cat([lower, extent], dim=1).T.contiguous()
    touched = n_pairs.nonzero()[:, 0]
    for part in touched.split(_runs(n_pairs[touched])):
        count = n_pairs[part]
        face = part.repeat_interleave(count)
        i = torch.arange(len(face), device=face.device) - (count.cumsum(0) - count).repeat_interleave(count)
        left, above, columns, _ = box.index_select(1, face)
        row = i // columns
        x, y = left + i - row * columns, above + row
        areas = torch.stack(_areas(coordinates.index_select(1, face), x + 0.5, y + 0.5))  # [3, N]
        least, most = areas.aminmax(dim=0)
        # All of one sign and not all zero: a triangle without area covers nothing.
        chosen = (((least >= 0) & (most > 0)) | ((most <= 0) & (least < 0))).nonzero()[:, 0]
        area = areas.index_select(1, chosen).T
        pixel = (y * width + x).index_select(0, chosen)
        yield Fragments(pixel, face.index_select(0, chosen), area / area.sum(dim=-1, keepdim=True))


def _runs(n_pairs: Int[Tensor, "F"]) -> list[int]:
    """Lengths of runs of triangles with at most `PAIRS` pairs each, or a single triangle."""
    total = n_pairs.cumsum(0)
    lengths, start, before = [], 0, 0
    while start < len(n_pairs):
        end = max(start + 1, int(torch.searchsorted(total, before + PAIRS, right=True)))
        lengths.append(end - start)
        start, before = end, int(total[end - 1])
    return lengths


def _areas(corner: Float[Tensor, "6 N"], x: Float[Tensor, "N"], y: Float[Tensor, "N"]) -> tuple[Tensor, Tensor, Tensor]:
    """Twice the signed areas that places make with the sides opposite of the corners a, b and c."""
    ax, ay, bx, by, cx, cy = corner
    ax, bx, cx = ax - x, bx - x, cx - x
    ay, by, cy = ay - y, by - y, cy - y
    return bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
