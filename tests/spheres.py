"""A plug-in: a data set of the unit sphere, which costs nothing, in files that are turned, enlarged and far away."""

from dataclasses import dataclass

import torch

from datasets import datasets
from datasets.cameras import Cameras
from datasets.synthetic import look_at_origin, spiral
from datasets.views import Views, pixel_offsets
from tests.moved import TO_DATASET
from utils.types import Surface

DISTANCE = 4.0


@datasets.register("sphere-data")
class Spheres:
    @dataclass
    class Config:
        size: int = 24
        """Width and height in pixels."""
        n_views: int = 8
        """Views of each split."""

    def __init__(self, config: "Spheres.Config"):
        self.config = config

    def views(self, split: str) -> Views:
        n, size = self.config.n_views, self.config.size
        shape = (n, 2)
        cameras = Cameras(
            look_at_origin(DISTANCE * spiral(n, seed=0)),
            torch.full(shape, 1.6 * size),  # sees 0.3 more than the sphere to every side
            torch.full(shape, size / 2),
            torch.full(shape, size),
        )
        place = torch.cartesian_prod(torch.arange(size), torch.arange(size)).flip(1)  # row by row
        view = torch.arange(n).repeat_interleave(size**2)
        origins, directions = cameras.rays(view, place.repeat(n, 1))
        # |o + t d| = 1 has the roots t = -o.d -+ sqrt((o.d)^2 - |o|^2 + 1).
        towards = -(origins * directions).sum(-1)
        inside = towards**2 - DISTANCE**2 + 1
        depth = torch.where(inside > 0, towards - inside.clamp_min(0).sqrt(), 0.0)
        points = spiral(2000, seed=0)
        surface = Surface(points, lambda query: (query.norm(dim=-1) - 1).abs(), 2.0, points)
        return Views(
            cameras,
            [f"{split}_{row}" for row in range(n)],
            pixel_offsets(cameras.size),
            color=None,
            alpha=255 * (depth > 0).byte(),
            depth=depth,
            surface=surface,
            to_dataset=TO_DATASET,
        )
