"""Images between their pixels."""

from jaxtyping import Float, UInt8
from torch import Tensor


def bilinear(image: UInt8[Tensor, "H W C"], place: Float[Tensor, "N 2"]) -> Float[Tensor, "N C"]:
    """Values in [0, 1] at places in an image of bytes, on the device of `place`.

    Args:
        image: at least one pixel.
        place: [N, 2] x to the right and y down, in pixels; pixel (c, r) has its centre at (c + 1/2, r + 1/2). What lies
            beyond the outermost centres takes the value on the border.
    """
    height, width, _ = image.shape
    place = place.to(image.device)
    x, y = ((place[:, i] - 0.5).clamp(0, n - 1) for i, n in enumerate((width, height)))
    left, top = x.floor().clamp(max=max(width - 2, 0)), y.floor().clamp(max=max(height - 2, 0))
    across, down = (x - left)[:, None], (y - top)[:, None]
    first = (top * width + left).long()
    right, below = int(width > 1), width * int(height > 1)
    pixels = image.view(height * width, -1)
    total = (1 - across) * (1 - down) * pixels.index_select(0, first)
    total += across * (1 - down) * pixels.index_select(0, first + right)
    total += (1 - across) * down * pixels.index_select(0, first + below)
    total += across * down * pixels.index_select(0, first + right + below)
    return (total / 255).to(place.device)
