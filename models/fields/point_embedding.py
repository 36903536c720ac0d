"""Harmonics of the points of whole rays, and of the cones around them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.fields.harmonics import HarmonicEmbedding
from utils.registry import ConfigError
from utils.types import RayPoints, Rays


class PointEmbedding(nn.Module):
    """Harmonic embedding of positions.

    Args:
        n_frequencies: of the embedding.
        is_integrated: whether it is averaged over the cone of the pixel (Barron et al. 2021, mip-NeRF, sec. 3.1).
    """

    def __init__(self, n_frequencies: int, is_integrated: bool):
        super().__init__()
        self.harmonics = HarmonicEmbedding(n_frequencies)
        self.is_integrated = is_integrated
        self.n_outputs = self.harmonics.n_outputs

    def forward(self, rays: Rays, points: RayPoints) -> Float[Tensor, "R P E"]:
        if not self.is_integrated:
            return self.harmonics(points.positions(rays))
        if points.edges is None or rays.radius is None:
            raise ConfigError(
                "model.implicit_function.use_integrated_positional_encoding needs the cones of pixels; set "
                "model.ray_sampler.cast_ray_bundle_as_cone to true"
            )
        return self.harmonics(*cone_gaussians(rays, points))


def cone_gaussians(rays: Rays, points: RayPoints) -> tuple[Float[Tensor, "R P 3"], Float[Tensor, "R P 3"]]:
    """Mean and variance by axis of the points in intervals of cones (Barron et al. 2021, mip-NeRF, eq. 7 and 16).

    Args:
        rays: with the radii of their cones.
        points: with edges.
    """
    assert points.edges is not None and rays.radius is not None
    start, end = points.edges[:, :-1], points.edges[:, 1:]
    middle, half = 0.5 * (start + end), 0.5 * (end - start)
    middle2, half2 = middle.square(), half.square()
    # An interval of no length at the origin is a point.
    share = half2 / (3 * middle2 + half2).clamp_min(torch.finfo(half.dtype).tiny)
    t = middle + 2 * middle * share
    along = half2 / 3 - 4 / 15 * share.square() * (12 * middle2 - half2)
    across = rays.radius[:, None].square() * (middle2 / 4 + 5 / 12 * half2 - 4 / 15 * half2 * share)
    direction2 = rays.directions.square()
    sideways = 1 - direction2 / direction2.sum(-1, keepdim=True).clamp_min(1e-6)
    variance = along[..., None] * direction2[:, None] + across[..., None] * sideways[:, None]
    return torch.addcmul(rays.origins[:, None], rays.directions[:, None], t[..., None]), variance
