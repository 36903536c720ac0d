"""Marching and compositing by nerfacc 0.5 (Li et al. 2023), for those who name it; CUDA only.

Its intervals begin where ours do, at `near + k * step`, and are kept by their midpoints, so results agree up to
samples that lie in a face of a cell.
"""

from typing import Any

import torch
from torch import Tensor

from models.ops import reference
from models.ops.dispatch import PACKAGES, package
from utils.contraction import Contraction, contract
from utils.registry import ConfigError


def march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    grid: Tensor,
    contraction: Contraction,
    radius: float,
    step: float | Tensor,
    cone: float,
    jitter: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`marching.march` with a range clipped to the box already. Solid cells are known to us alone, so all cells that
    are not empty are sampled and what lies behind a solid one is dropped.

    Raises:
        ConfigError: nerfacc is missing, or space is contracted, or intervals grow: it knows neither our contraction nor
            an even lattice of growing intervals.
    """
    nerfacc = _nerfacc("march", origins)
    if contraction != "box" or cone != 0:
        raise ConfigError(
            f"backend of march is nerfacc, which has even steps in a box, not contraction {contraction} with cone "
            f"{cone:g}; use backend auto"
        )
    grid = grid.to(origins.device)
    occupied = (grid != reference.EMPTY).permute(2, 1, 0)[None].contiguous()  # indexed [level, x, y, z]
    box = origins.new_tensor([[-radius] * 3 + [radius] * 3])
    edges, samples, _ = nerfacc.traverse_grids(
        origins, directions, occupied, box, near_planes=near + jitter * step, far_planes=far, step_size=float(step)
    )
    t_start, t_end = edges.vals[edges.is_left], edges.vals[edges.is_right]
    ray = samples.ray_indices
    middle = 0.5 * (t_start + t_end)
    points = contract(origins[ray] + middle[:, None] * directions[ray], radius, contraction)
    x, y, z = (points * len(grid)).clamp(0, len(grid) - 1).long().unbind(1)
    offsets = _offsets(ray, len(origins))
    n_solid = _before((grid[z, y, x] == reference.SOLID).long())
    is_seen = n_solid[1:] == n_solid[offsets[ray]]
    ray = ray[is_seen]
    return t_start[is_seen], t_end[is_seen], ray, _offsets(ray, len(origins))


def composite(alpha: Tensor, values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """`compositing.composite`. Its derivative by alpha is not exact where a sample is opaque (alpha = 1)."""
    nerfacc = _nerfacc("composite", alpha)
    n_rays = len(offsets) - 1
    ray = torch.arange(n_rays, device=alpha.device).repeat_interleave(offsets.diff(), output_size=len(alpha))
    weights, _ = nerfacc.render_weight_from_alpha(alpha, ray_indices=ray, n_rays=n_rays)
    sums = nerfacc.accumulate_along_rays(weights, values.t(), ray_indices=ray, n_rays=n_rays)
    return weights, sums.t()


def _nerfacc(op: str, tensor: Tensor) -> Any:
    module = package("nerfacc", op, tensor)
    if not module.__version__.startswith("0.5."):
        raise ConfigError(
            f"backend of {op} is nerfacc, of which {module.__version__} is installed, but 0.5 is spoken here: "
            f"{PACKAGES['nerfacc']}"
        )
    return module


def _offsets(ray: Tensor, n_rays: int) -> Tensor:
    return _before(torch.bincount(ray, minlength=n_rays))


def _before(counts: Tensor) -> Tensor:
    """Sums of all counts before each, and at the end of all."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
