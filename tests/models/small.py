"""Models that are built and asked in no time, and rays to ask them with."""

import torch

from models import models
from models.nerf import NeRF
from models.neus import NeuS
from utils.config import parse
from utils.types import Rays


def rays_along_x(n: int = 5, spread: float = 0.2) -> Rays:
    """Rays from x = -3 towards +x, spread over y."""
    y = torch.linspace(-spread, spread, n)
    origins = torch.stack([torch.full((n,), -3.0), y, torch.zeros(n)], dim=-1)
    directions = torch.tensor([[1.0, 0, 0]]).expand(n, 3).contiguous()
    zeros = torch.zeros(n, dtype=torch.int64)
    return Rays(origins, directions, torch.ones(n, 3), zeros, torch.zeros(n, 2, dtype=torch.int64))


def small_neus(**options) -> NeuS:
    grid = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "per_level_scale": 1.5, "include_xyz": True}
    node = {
        "name": "neus",
        "radius": 1.0,
        "num_samples_per_ray": 128,
        "geometry": {
            "name": "volume-sdf",
            "radius": 1.0,
            "feature_dim": 5,
            "xyz_encoding_config": grid,
            "mlp_network_config": {"otype": "VanillaMLP", "n_neurons": 32, "sphere_init": True, "weight_norm": True},
        },
        "texture": {"name": "volume-radiance", "input_feature_dim": 8, "color_activation": "sigmoid"},
        **options,
    }
    torch.manual_seed(0)
    return models.make(parse(NeuS.Config, {k: v for k, v in node.items() if k != "name"}, "model"))


def small_nerf(**options) -> NeRF:
    grid = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "per_level_scale": 1.5}
    node = {
        "radius": 1.0,
        "num_samples_per_ray": 64,
        "geometry": {
            "name": "volume-density",
            "radius": 1.0,
            "density_activation": "trunc_exp",
            "xyz_encoding_config": grid,
        },
        "texture": {"name": "volume-radiance", "input_feature_dim": 16, "color_activation": "sigmoid"},
        **options,
    }
    torch.manual_seed(0)
    return models.make(parse(NeRF.Config, node, "model"))


def ball(points: torch.Tensor) -> torch.Tensor:
    return points.norm(dim=-1) - 0.5


def rays_of(n: int, seed: int = 0) -> Rays:
    """From around towards the origin, with everything that rays may carry."""
    torch.manual_seed(seed)
    origins = 3 * torch.nn.functional.normalize(torch.randn(n, 3), dim=-1)
    directions = torch.nn.functional.normalize(0.3 * torch.randn(n, 3) - origins, dim=-1)
    row = torch.arange(n) % 2
    one = torch.ones(n)
    return Rays(
        origins, directions, one[:, None].expand(n, 3), row, row[:, None].expand(n, 2), one, row, one, 0.01 * one
    )
