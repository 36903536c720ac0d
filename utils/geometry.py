"""Small geometry on tensors of vectors."""

from jaxtyping import Float
from torch import Tensor


def length(vectors: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B"]:
    """Euclidean length, at least 1e-6 so that its gradient is finite at zero.

    Sum and root are several times faster than `Tensor.norm` where the three coordinates are far apart in memory, as
    those of feature-major arrays are.
    """
    return vectors.square().sum(-1).clamp_min(1e-12).sqrt()


def unit(vectors: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3"]:
    """Vectors brought to length 1; zero stays zero."""
    return vectors * vectors.square().sum(-1, keepdim=True).clamp_min(1e-12).rsqrt()
