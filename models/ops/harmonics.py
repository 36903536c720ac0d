"""Spherical harmonics of directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from models.ops import reference
from models.ops.dispatch import Backend, call, check_shapes, uses_native

HIGHEST_DEGREE = 4


def spherical_harmonics(
    d: Float[Tensor, "3 N"], degree: int, backend: Backend = "auto"
) -> Float[Tensor, "harmonics N"]:
    """Real spherical harmonics of unit vectors, the smooth functions a view-dependent colour is built from.

    Order and signs are those of Instant-NGP: bands in order, -m to m within a band, Condon-Shortley phase included.

    Args:
        d: [3, N] unit vectors.
        degree: number of bands, 1 to 4.

    Returns:
        [degree^2, N], orthonormal over the sphere. Differentiable by `d`, exactly, in the reference alone: the kernels
        refuse, and "auto" turns to the reference.

    Raises:
        ValueError: degree out of range.
    """
    if not 1 <= degree <= HIGHEST_DEGREE:
        raise ValueError(f"spherical harmonics: degree is {degree}, expected 1 to {HIGHEST_DEGREE}")
    check_shapes("spherical_harmonics", d=(d, (3, d.shape[-1])))
    obstacle = "the kernel gives no gradient by directions" if torch.is_grad_enabled() and d.requires_grad else ""
    if not uses_native("spherical_harmonics", backend, [d], obstacle):
        return reference.spherical_harmonics(d, degree)
    harmonics = d.new_empty(degree**2, d.shape[1])
    call("spherical_harmonics", degree, d.shape[1], d.contiguous(), harmonics)
    return harmonics
