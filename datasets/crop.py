"""Cutting photographs around their object."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

OBJECT = 0.4
"""Value of a mask from which on a pixel is object, in [0, 1]: boxes are rather too large."""
STEP = 0.05
"""By how much that is lowered while the mask shows nothing."""


@dataclass
class Crop:
    """A window around the object, with some of its surroundings.

    Attributes:
        context: width and height of these over those of the object, half on either side.
        box: left, top, width and height of the object in pixels, or None for what the mask shows.
    """

    context: float
    box: tuple[float, float, float, float] | None = None

    def window(self, mask: UInt8[np.ndarray, "H W"] | None, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom edge in an image of this size, which a window never leaves.

        Args:
            mask: of the object, 255 where it is; needed without a box. An empty one gives the whole image.
        """
        left, top, across, down = self.box or _box(mask)
        low = np.array([left - self.context / 2 * across, top - self.context / 2 * down])
        high = low + (1 + self.context) * np.array([across, down])
        size = (width, height)
        (left, top), (right, bottom) = (np.round(np.clip(edge, 0, size)).astype(int).tolist() for edge in (low, high))
        return left, top, right, bottom


def _box(mask: UInt8[np.ndarray, "H W"] | None) -> tuple[float, float, float, float]:
    """Left, top, width and height of what a mask shows, however faintly."""
    assert mask is not None
    least = OBJECT
    is_object = mask > 255 * least
    while is_object.sum() <= 1 and least >= 0:
        least -= STEP
        is_object = mask > 255 * least
    columns, rows = (np.flatnonzero(is_object.any(axis)).tolist() for axis in (0, 1))
    return columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
