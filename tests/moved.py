"""A plug-in: the synthetic data set as if its files held other coordinates, with a camera path for the video."""

import functools
from dataclasses import dataclass, fields, replace

import torch

from datasets import datasets
from datasets.cameras import Cameras
from datasets.synthetic import Synthetic
from datasets.views import Views, pixel_offsets

N_FRAMES = 3
TO_DATASET = torch.tensor([[0.0, -100, 0, 1e6], [100, 0, 0, 2e6], [0, 0, 100, 50], [0, 0, 0, 1]], dtype=torch.float64)
"""A quarter turn around z, 100 times as large, far away."""


@functools.cache
def rendered(split: str, **options) -> Views:
    """The same views are asked for many times, and never changed."""
    return Synthetic(Synthetic.Config(**options)).views(split)  # type: ignore[arg-type]


@datasets.register("moved-data")
class Moved:
    @dataclass
    class Config(Synthetic.Config):
        has_mask: bool = True
        """Whether the views have masks."""
        apply_mask: bool = True
        """Whether these hide what is around the object."""

    read: list[str] = []
    """Splits in the order in which they were read."""

    def __init__(self, config: "Moved.Config"):
        self.config = config

    def views(self, split: str) -> Views:
        self.read.append(split)
        options = {option.name: getattr(self.config, option.name) for option in fields(Synthetic.Config)}
        views = replace(rendered(split, **options), to_dataset=TO_DATASET, apply_mask=self.config.apply_mask)
        return views if self.config.has_mask else replace(views, alpha=None)

    def path(self) -> Views | None:
        pose = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 0]]).repeat(N_FRAMES, 1, 1)
        size = torch.tensor([[20, 16]]).repeat(N_FRAMES, 1)
        cameras = Cameras(pose, 2.0 * size, size / 2, size)
        return Views(cameras, [str(frame) for frame in range(N_FRAMES)], pixel_offsets(size), None)
