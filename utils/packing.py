"""Packed samples in arrays of a fixed length, which need nobody to know how many samples there are."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def fitting(offsets: Int[Tensor, "R_plus_1"], capacity: int) -> tuple[Int[Tensor, "R_plus_1"], Bool[Tensor, "R"]]:
    """Which rays have room for all of their samples in arrays of a length; the others lose all they have.

    Args:
        offsets: [R + 1] samples of ray `r` would be `offsets[r] ... offsets[r + 1] - 1`.
        capacity: length of the arrays.

    Returns:
        Offsets [R + 1] of the samples that are left, and which rays [R] are whole: the first ones.
    """
    fits = offsets <= capacity
    return offsets.clamp(max=torch.where(fits, offsets, 0).amax()), fits[1:]


def moved(values: Float[Tensor, "N"] | Int[Tensor, "N"], place: Int[Tensor, "N"], capacity: int) -> Tensor:
    """Values at their new places in an array [capacity], with zeros elsewhere; the place `capacity` drops a value."""
    return values.new_zeros(capacity + 1).scatter_(0, place, values)[:capacity]
