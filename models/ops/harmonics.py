"""Spherical harmonics of directions."""

from jaxtyping import Float
from torch import Tensor

from models.ops import reference
from models.ops.dispatch import Backend, uses_native

HIGHEST_DEGREE = 4


def spherical_harmonics(d: Float[Tensor, "3 N"], degree: int, backend: Backend = "auto") -> Float[Tensor, "harmonics N"]:
    """Real spherical harmonics of unit vectors, the smooth functions a view-dependent colour is built from.

    Order and signs are those of Instant-NGP: bands in order, -m to m within a band, Condon-Shortley phase included.

    Args:
        d: [3, N] unit vectors. The kernel gives no gradient by them.
        degree: number of bands, 1 to 4.

    Returns:
        [degree^2, N], orthonormal over the sphere.

    Raises:
        ValueError: degree out of range.
    """
    if not 1 <= degree <= HIGHEST_DEGREE:
        raise ValueError(f"spherical harmonics: degree is {degree}, expected 1 to {HIGHEST_DEGREE}")
    uses_native("spherical_harmonics", backend, [d])
    return reference.spherical_harmonics(d, degree)
