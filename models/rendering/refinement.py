"""Hierarchical sampling: a pass looks closer where the one before it saw something (NeRF, Mildenhall et al. 2020,
sec. 5.2)."""

import torch
from jaxtyping import Float
from torch import Tensor

from utils.types import RayPoints


@torch.no_grad()
def refine(
    points: RayPoints,
    weights: Float[Tensor, "R P"],
    n: int,
    is_random: bool,
    keeps_points: bool = True,
    is_blurred: bool = False,
    epsilon: float = 1e-5,
) -> RayPoints:
    """Points for the next pass, where the weights of this one are.

    Points without extent have the probability of their weight spread between the midpoints to their neighbours, so the
    first and the last weight do not count. Points with edges are drawn as n + 1 new edges.

    Args:
        points: of the pass that is over.
        weights: [R, P] shares of the ray's colour; negative ones count as 0.
        n: number of points to add.
        is_random: whether they are drawn at random; otherwise they stand at even steps of the distribution.
        keeps_points: whether the points of the pass stay among them.
        is_blurred: whether weights are widened by a maximum and a mean of neighbours (Barron et al. 2021, mip-NeRF).
        epsilon: added to every weight, so that an empty ray is sampled evenly (the published sampler adds it once to
            their sum, which sends all points of an empty ray to its far end; D6 in docs/implicitron.md).

    Returns:
        n points a ray, or P + n; with edges, n intervals or P + n + 1.
    """
    if is_blurred:
        weights = blurred(weights)
    if points.edges is None:
        t = sample_distribution(0.5 * (points.t[:, 1:] + points.t[:, :-1]), weights[:, 1:-1], n, is_random, epsilon)
        return RayPoints(torch.cat([points.t, t], dim=1).sort(dim=1).values if keeps_points else t)
    edges = sample_distribution(points.edges, weights, n + 1, is_random, epsilon)
    if keeps_points:
        edges = torch.cat([points.edges, edges], dim=1).sort(dim=1).values
    return RayPoints(0.5 * (edges[:, 1:] + edges[:, :-1]), edges)


def blurred(weights: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
    """Weights widened: the mean of the maxima of either neighbour and oneself, ends repeated."""
    padded = torch.cat([weights[:, :1], weights, weights[:, -1:]], dim=1)
    highest = torch.maximum(padded[:, 1:], padded[:, :-1])  # [R, P + 1]
    return 0.5 * (highest[:, 1:] + highest[:, :-1])


def sample_distribution(
    edges: Float[Tensor, "R B_plus_1"], weights: Float[Tensor, "R B"], n: int, is_random: bool, epsilon: float
) -> Float[Tensor, "R n"]:
    """Ascending places distributed as a histogram, by inversion of its integral.

    Args:
        edges: [R, B + 1] of the bins, ascending.
        weights: [R, B] of the bins, of any sum; negative ones count as 0.
        n: places a row.
        is_random: whether they are drawn at random; otherwise at n even steps from the first edge to the last.
        epsilon: added to every weight.
    """
    share = torch.cumsum(weights.clamp_min(0) + epsilon, dim=1)
    share = torch.nn.functional.pad(share / share[:, -1:], (1, 0))  # [R, B + 1]
    if is_random:
        wanted = torch.rand(len(edges), n, device=edges.device).sort(dim=1).values
    else:
        wanted = torch.linspace(0, 1, n, device=edges.device).expand(len(edges), n).contiguous()
    upper = torch.searchsorted(share, wanted, right=True).clamp(1, edges.shape[1] - 1)
    below, above = share.gather(1, upper - 1), share.gather(1, upper)
    part = (wanted - below) / (above - below).clamp_min(torch.finfo(share.dtype).tiny)
    return torch.lerp(edges.gather(1, upper - 1), edges.gather(1, upper), part.clamp(0, 1))
