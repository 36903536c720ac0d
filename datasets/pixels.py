"""Which pixels a training batch takes. Randomness comes from torch's default generator on the device of the views."""

from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from datasets.views import Views
from utils.registry import ConfigError

# Remainders of a large integer: a random float times the size of a range may round up to the size itself.
_LARGE = 1 << 48

Pixels = tuple[Int[Tensor, "R"], Int[Tensor, "R 2"]]


def draw_pixels(
    views: Views, n_pixels: int, one_image: bool, kind: Literal["uniform", "mask", "full-grid"] = "uniform"
) -> Pixels:
    """Pixels of a batch, drawn with replacement.

    Args:
        views: at least one view.
        n_pixels: how many.
        one_image: whether all come from one image, itself drawn at random.
        kind: `uniform` draws first the image, then a place in it, each with equal chances. `mask` draws of what the
            object covers, every pixel with equal chances. `full-grid` takes all pixels of one image, however many.

    Returns:
        [R] rows of the views and [R, 2] columns and rows of the pixels.

    Raises:
        ConfigError: `mask` without masks, or with masks that cover nothing.
    """
    device = views.offsets.device
    if kind == "mask":
        return _covered(views, n_pixels, one_image)
    if kind == "full-grid":
        view = torch.randint(len(views), (1,), device=device)
        low, high = views.offsets[view], views.offsets[view + 1]
        return _places(views, torch.arange(int(low), int(high), device=device))
    size = views.cameras.size
    view = torch.randint(len(views), (1 if one_image else n_pixels,), device=device).expand(n_pixels)
    pixel = torch.randint(_LARGE, (n_pixels, 2), device=device) % size.index_select(0, view)
    return view, pixel


def _covered(views: Views, n_pixels: int, one_image: bool) -> Pixels:
    if not views.has_mask:
        raise ConfigError("model.pixel_sampling is 'mask', but the data set has no masks; set it to uniform")
    rows = views.covered
    if len(rows) == 0:
        raise ConfigError("model.pixel_sampling is 'mask', but the masks cover nothing; set it to uniform")
    low, high = rows.new_zeros(1), rows.new_full((1,), len(rows))
    if one_image:
        first = torch.searchsorted(rows, views.offsets)  # [V + 1] of the covered pixels of every image
        seen = first.diff().nonzero()[:, 0]
        view = seen[torch.randint(len(seen), (1,), device=rows.device)]
        low, high = first[view], first[view + 1]
    return _places(views, rows[low + torch.randint(_LARGE, (n_pixels,), device=rows.device) % (high - low)])


def _places(views: Views, row: Int[Tensor, "R"]) -> Pixels:
    """Views and pixels of rows of the store."""
    view = torch.searchsorted(views.offsets, row, right=True) - 1
    place = row - views.offsets[view]
    width = views.cameras.size[view, 0]
    return view, torch.stack((place % width, place // width), dim=-1)
