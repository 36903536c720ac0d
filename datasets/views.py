"""All views of one split of one scene, and the rays and targets at any of their pixels."""

import functools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from datasets.cameras import Cameras
from datasets.points import SparsePoints
from utils.types import RayBatch, Rays, Record, Surface, Target

STORE = ("color", "alpha", "depth", "normal")
"""Fields of `Views` with a row per pixel."""


@dataclass
class Views(Record):
    """Photographs and their cameras.

    The pixels of all images stand in one store, image after image, row after row, so images may differ in
    size and a batch is one gather. Colours are kept as the bytes of the image files.

    Attributes:
        cameras: V cameras.
        names: of the V images.
        offsets: [V + 1] pixels of image i are rows `offsets[i]:offsets[i + 1]` of the store.
        color: [P, 3] straight colours (not premultiplied), or None for a camera path without photographs.
        alpha: [P] share of the pixel that the object covers, 255 for all of it, or None without masks.
        depth: [P] distance along the ray of the pixel's centre, world units, 0 where nothing is hit or known, or None.
        normal: [P, 3] unit world normal there, 0 where nothing is hit, or None.
        surface: the true surface, if known.
        apply_mask: whether targets show the object alone, on the backdrop of the ray.
        points: sparse points from structure from motion, or None.
        fills_unit_ball: whether the data set says so: that the object lies in the unit ball and about fills it.
        scene: [V] row of the sequence that an image belongs to, or None where there is one sequence only.
        scene_names: of the sequences that `scene` counts, or of the only one; None where they have none.
        time: [V] time at which it was taken, in the data set's unit, or None if unknown.
        to_dataset: [4, 4] similarity from scene coordinates to those of the data set's files; None: they are the same.
        is_store_fixed: whether the store stays in memory where it is when the views move to another device; batches
            are then gathered there and follow.
        bounds: [V, 2] depths along the optical axis, world units, between which an image shows things, or None if
            unknown.
    """

    cameras: Cameras
    names: list[str]
    offsets: Int[Tensor, "V_plus_1"]
    color: UInt8[Tensor, "P 3"] | None
    alpha: UInt8[Tensor, "P"] | None = None
    depth: Float[Tensor, "P"] | None = None
    normal: Float[Tensor, "P 3"] | None = None
    surface: Surface | None = None
    apply_mask: bool = True
    points: SparsePoints | None = None
    fills_unit_ball: bool = False
    scene: Int[Tensor, "V"] | None = None
    scene_names: list[str] | None = None
    time: Float[Tensor, "V"] | None = None
    to_dataset: Float64[Tensor, "4 4"] | None = None
    is_store_fixed: bool = False
    bounds: Float[Tensor, "V 2"] | None = None

    def __len__(self) -> int:
        return len(self.cameras)

    def to(self, device: torch.device | str) -> "Views":
        if not self.is_store_fixed:
            return super().to(device)
        store = {part: getattr(self, part) for part in STORE}
        bare = replace(self, **dict.fromkeys(STORE), is_store_fixed=False)
        return replace(bare.to(device), **store, is_store_fixed=True)

    @property
    def n_bytes(self) -> int:
        """Memory that the store takes."""
        parts = [getattr(self, part) for part in STORE]
        return sum(part.nbytes for part in parts if part is not None)

    @property
    def has_mask(self) -> bool:
        return self.alpha is not None

    @functools.cached_property
    def covered(self) -> Int[Tensor, "K"]:
        """Rows of the store that the object covers by half or more, ascending; there must be masks."""
        assert self.alpha is not None
        return (self.alpha > 127).nonzero()[:, 0].to(self.offsets.device)

    @property
    def is_real(self) -> bool:
        """Whether there are photographs to compare with."""
        return self.color is not None

    def size(self, view: int) -> tuple[int, int]:
        """Width and height of an image in pixels."""
        width, height = self.cameras.size[view].tolist()
        return width, height

    def picture(self, part: UInt8[Tensor, "P *channels"], view: int) -> UInt8[Tensor, "H W C"]:
        """One image of a part of the store, such as `color` or `alpha`, on the device of the store."""
        width, height = self.size(view)
        first, last = self.offsets[view : view + 2].tolist()
        return part[first:last].view(height, width, -1)

    def draw(self, view: Int[Tensor, "R"], pixel: Int[Tensor, "R 2"], backdrop: Float[Tensor, "R 3"]) -> RayBatch:
        """Rays and targets of single pixels.

        Args:
            view: [R] which image.
            pixel: [R, 2] column and row in it.
            backdrop: [R, 3] colour in [0, 1] that a ray sees where it hits nothing; it also stands in for the
                colour of views without photographs.
        """
        origins, directions = self.cameras.rays(view, pixel)
        width = self.cameras.size[:, 0].index_select(0, view)
        row = self.offsets.index_select(0, view) + pixel[:, 1] * width + pixel[:, 0]
        mask, color = _gather(self.alpha, row), _gather(self.color, row)
        mask = None if mask is None else mask.to(backdrop) / 255
        color = backdrop if color is None else color.to(backdrop) / 255
        if self.apply_mask and mask is not None:
            color = torch.lerp(backdrop, color, mask[:, None])
        depth, cosine = _gather(self.depth, row), None
        if depth is not None:
            backward = self.cameras.pose[:, :, 2].contiguous()  # rows side by side are gathered ten times faster
            cosine = -(directions * backward.index_select(0, view)).sum(-1)
        target = Target(color, mask, depth, _gather(self.normal, row), view, cosine, self.is_real)
        scene, time = _gather(self.scene, view), _gather(self.time, view)
        radius = self.cameras.footprint.index_select(0, view)
        return RayBatch(Rays(origins, directions, backdrop, view, pixel, mask, scene, time, radius), target)

    def image(self, view: int, backdrop: Float[Tensor, "3"]) -> RayBatch:
        """Rays and targets of a whole image, row by row.

        Args:
            view: which image.
            backdrop: [3] colour in [0, 1] behind everything.
        """
        width, height = self.size(view)
        rows, columns = torch.meshgrid(
            *(torch.arange(n, device=backdrop.device) for n in (height, width)), indexing="ij"
        )
        pixel = torch.stack((columns, rows), dim=-1).reshape(-1, 2)  # [height * width, 2]
        n_pixels = pixel.shape[0]
        return self.draw(torch.full_like(pixel[:, 0], view), pixel, backdrop.expand(n_pixels, 3))


def pixel_offsets(size: Int[Tensor, "V 2"]) -> Int[Tensor, "V_plus_1"]:
    """Where the pixels of every image begin in a store of images of these sizes; the last entry is their sum."""
    return torch.nn.functional.pad(size.long().prod(-1).cumsum(0), (1, 0))


def _gather(part: Tensor | None, row: Int[Tensor, "R"]) -> Tensor | None:
    """Rows of a part of the store, on the device of `row`, wherever the store is."""
    return None if part is None else part.index_select(0, row.to(part.device)).to(row.device)
