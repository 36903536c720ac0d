"""Volume rendering of a density field, as an object of its own or as the background of another."""

from torch import nn

from models.ops.dispatch import Backend
from models.rendering.composite import composite
from models.rendering.opacity import density_alpha
from utils.types import Rays, Rendered, Samples


def render_density(
    rays: Rays, samples: Samples, geometry: nn.Module, texture: nn.Module, backend: Backend = "auto"
) -> Rendered:
    """What a density field shows along rays, on the rays' backdrop (Mildenhall et al. 2020, NeRF, eq. 3)."""
    density, feature = geometry(samples.points(rays))
    color = texture(feature, samples.of_rays(rays.directions))
    alpha = density_alpha(density, samples.width)
    seen = composite(samples, alpha, color, backend=backend)
    return Rendered(
        color=seen.sums[0] + (1 - seen.opacity[:, None]) * rays.backdrop,
        opacity=seen.opacity,
        depth=seen.depth,
        samples=samples,
        weights=seen.weights,
        n_samples=samples.n_wanted,
    )
