"""The data set that needs no download: photographs of a trefoil knot of woven rope, whose surface is known exactly.

The object and its light never change, so results stay comparable: genus 1, diameter 2.4, relief and stripes finer
than 1/30 and 1/60 of it, concave everywhere strands pass each other, with a highlight that moves with the viewer.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from datasets import datasets
from datasets.cameras import Cameras
from datasets.knot import knot_surface
from datasets.progress import with_progress
from datasets.studio import photograph
from datasets.views import Views, pixel_offsets

DISTANCE = 4.0
"""From the cameras to the origin, world units."""
HALF_FIELD = 0.3145
"""Tangent of half the field of view: the bounding sphere just fits into the image."""
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@datasets.register("synthetic")
class Synthetic:
    """Renders its views when asked for them, in seconds."""

    @dataclass
    class Config:
        n_train_views: int = 64
        """Number of training views."""
        n_test_views: int = 16
        """Number of held-out views, which serve validation and test."""
        size: int = 200
        """Width and height of the images in pixels."""
        samples_per_pixel: int = 16
        """Rays averaged in a pixel, a square number."""
        seed: int = 0
        """Seed of the places of these rays in their pixel and of the arrangement of the cameras."""

        def __post_init__(self) -> None:
            for name in ("n_train_views", "n_test_views", "size", "samples_per_pixel"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name} = {getattr(self, name)}; expected at least 1")
            if math.isqrt(self.samples_per_pixel) ** 2 != self.samples_per_pixel:
                raise ValueError(f"samples_per_pixel = {self.samples_per_pixel}; expected a square such as 4, 9 or 16")

    def __init__(self, config: Config):
        self.config = config

    def views(self, split: Literal["train", "val", "test"]) -> Views:
        """The views of a split; "val" and "test" are the same held-out ones."""
        config = self.config
        cameras = self._cameras(split)
        places = _places_in_pixel(config.samples_per_pixel, config.seed)
        with _single_threads() as pool:
            work = pool.map(lambda view: photograph(cameras, view, places), range(len(cameras)))
            photographs = list(with_progress(work, len(cameras), f"Rendering {split} views"))
        return Views(
            cameras=cameras,
            names=[f"{split}_{view:03d}" for view in range(len(cameras))],
            offsets=pixel_offsets(cameras.size),
            color=torch.cat([photo.color for photo in photographs]),
            alpha=torch.cat([photo.alpha for photo in photographs]),
            depth=torch.cat([photo.depth for photo in photographs]),
            normal=torch.cat([photo.normal for photo in photographs]),
            surface=knot_surface(),
        )

    def _cameras(self, split: str) -> Cameras:
        config = self.config
        n_views = config.n_train_views + config.n_test_views
        held_out = ((torch.arange(config.n_test_views) + 0.5) * n_views / config.n_test_views).long()
        is_train = torch.ones(n_views, dtype=torch.bool)
        is_train[held_out] = False
        pose = look_at_origin(DISTANCE * spiral(n_views, config.seed)[is_train if split == "train" else ~is_train])
        shape = (len(pose), 2)
        return Cameras(
            pose=pose,
            focal=torch.full(shape, 0.5 * config.size / HALF_FIELD),
            center=torch.full(shape, 0.5 * config.size),
            size=torch.full(shape, config.size),
        )


@contextlib.contextmanager
def _single_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads whose torch operations stay on them: views side by side beat threads inside of small operations."""
    n_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(n_threads)


def spiral(n_points: int, seed: int) -> Float[Tensor, "N 3"]:
    """Points spread evenly over the unit sphere (Fibonacci spiral) from pole to pole; the seed turns it around z."""
    index = torch.arange(n_points, dtype=torch.float64)
    height = 1 - (2 * index + 1) / n_points
    radius = torch.sqrt(1 - height**2)
    angle = GOLDEN_ANGLE * (index + seed)
    return torch.stack((radius * angle.cos(), radius * angle.sin(), height), dim=-1).float()


def look_at_origin(position: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3 4"]:
    """Camera-to-world poses of upright cameras that look at the origin; none may stand on the z axis."""
    backward = torch.nn.functional.normalize(position, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(backward)
    right = torch.nn.functional.normalize(torch.linalg.cross(up, backward), dim=-1)
    return torch.stack((right, torch.linalg.cross(backward, right), backward, position), dim=-1)


def _places_in_pixel(n_places: int, seed: int) -> Float[Tensor, "S 2"]:
    """One random place in every cell of a square grid over the unit square (stratified sampling)."""
    n_cells = math.isqrt(n_places)
    cells = torch.cartesian_prod(torch.arange(n_cells), torch.arange(n_cells)).view(-1, 2)
    return (cells + torch.rand(n_places, 2, generator=torch.Generator().manual_seed(seed))) / n_cells
