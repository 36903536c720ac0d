"""Which pixels a training batch takes."""

import torch
from jaxtyping import Int
from torch import Tensor

from datasets.views import Views


def draw_pixels(views: Views, n_pixels: int, one_image: bool) -> tuple[Int[Tensor, "R"], Int[Tensor, "R 2"]]:
    """Pixels drawn with replacement: first the image, then a place in it, each with equal chances.

    Randomness comes from torch's default generator on the device of the views.

    Args:
        views: at least one view.
        n_pixels: how many.
        one_image: whether all come from one image, itself drawn at random.

    Returns:
        [R] rows of the views and [R, 2] columns and rows of the pixels.
    """
    size = views.cameras.size
    view = torch.randint(len(views), (1 if one_image else n_pixels,), device=size.device).expand(n_pixels)
    # The remainder of a large integer: a random float times the width may round up to the width itself.
    pixel = torch.randint(1 << 48, (n_pixels, 2), device=size.device) % size[view]
    return view, pixel
