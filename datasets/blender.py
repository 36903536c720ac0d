"""Scenes in the layout of NeRF-Synthetic: `transforms_<split>.json` beside folders of PNG images.

Images with an alpha channel are cut out by it; images without one have no masks. The world is the file's: nothing
is moved or scaled, z is up, and the object is expected around the origin.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from datasets import datasets
from datasets.cameras import Cameras
from datasets.frames import Frame, read_frames
from datasets.progress import with_progress
from datasets.surfaces import read_surface
from datasets.views import Views, pixel_offsets
from utils.images import read_image, shrink
from utils.registry import ConfigError, nearest
from utils.types import Surface

SURFACE_ENDINGS = (".ply", ".obj", ".stl", ".off", ".glb")


@dataclass
class Photograph:
    """An image at the size it is used, with the intrinsics at that size.

    Attributes:
        pixels: [H, W, 3 or 4] RGB or RGBA.
        focal: [2] pixels.
        center: [2] pixels.
    """

    pixels: UInt8[np.ndarray, "H W C"]
    focal: Float[Tensor, "2"]
    center: Float[Tensor, "2"]


@datasets.register("blender")
class Blender:
    """One folder of posed images, as Blender's NeRF exporter writes it."""

    @dataclass
    class Config:
        scene: str
        """Name of the scene; other keys refer to it."""
        root_dir: str
        """Folder with the transforms_<split>.json files."""
        img_wh: list[int] | None = None
        """Width and height in pixels to shrink the images to; null keeps their size."""
        img_downscale: int | None = None
        """Divisor of width and height, the alternative to img_wh."""
        train_split: str = "train"
        """Which transforms_<split>.json holds the training views."""
        val_split: str = "val"
        """Which transforms_<split>.json holds the validation views."""
        test_split: str = "test"
        """Which transforms_<split>.json holds the test views."""
        surface_file: str | None = None
        """Mesh or point cloud of the true surface in scene coordinates, relative to root_dir, to measure against."""

        def __post_init__(self) -> None:
            if self.img_wh is not None and self.img_downscale is not None:
                raise ValueError("img_wh and img_downscale both set the image size; set one of them to null")
            if self.img_wh is not None and (len(self.img_wh) != 2 or min(self.img_wh) < 1):
                raise ValueError(f"img_wh = {self.img_wh}; expected [width, height] in pixels")
            if self.img_downscale is not None and self.img_downscale < 1:
                raise ValueError(f"img_downscale = {self.img_downscale}; expected an integer of at least 1")

    def __init__(self, config: Config):
        self.config = config
        self._root = Path(config.root_dir)

    def views(self, split: str) -> Views:
        """The views of split "train", "val" or "test".

        Raises:
            ConfigError: something is missing, broken or contradictory; the message names it.
        """
        _check_root(self._root)
        key = f"{split}_split"
        frames = read_frames(_transforms_file(self._root, getattr(self.config, key), f"dataset.{key}"))
        # Pillow decodes without holding Python's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            photographs = list(with_progress(pool.map(self._photograph, frames), len(frames), f"Reading {split} views"))
        _check_alpha(frames, photographs)

        size = torch.tensor([photograph.pixels.shape[1::-1] for photograph in photographs])  # [V, 2]
        cameras = Cameras(
            pose=torch.stack([frame.pose for frame in frames]),
            focal=torch.stack([photograph.focal for photograph in photographs]),
            center=torch.stack([photograph.center for photograph in photographs]),
            size=size,
        )
        pixels = [torch.from_numpy(p.pixels.reshape(-1, p.pixels.shape[2])) for p in photographs]
        return Views(
            cameras=cameras,
            names=[frame.image.stem for frame in frames],
            offsets=pixel_offsets(size),
            color=torch.cat([p[:, :3] for p in pixels]),
            alpha=torch.cat([p[:, 3] for p in pixels]) if pixels[0].shape[1] == 4 else None,
            surface=self._surface,
        )

    def _photograph(self, frame: Frame) -> Photograph:
        pixels = read_image(frame.image)
        height, width = pixels.shape[:2]
        frame.check_size(width, height)
        focal, center = frame.intrinsics(width, height)
        new_width, new_height = self._size(frame, width, height)
        if (new_width, new_height) != (width, height):
            pixels = shrink(pixels, new_width, new_height)
        scale = torch.tensor([new_width / width, new_height / height])
        return Photograph(pixels, focal * scale, center * scale)

    def _size(self, frame: Frame, width: int, height: int) -> tuple[int, int]:
        """Width and height at which an image is used."""
        if self.config.img_downscale is not None:
            new_width, new_height = width // self.config.img_downscale, height // self.config.img_downscale
            if min(new_width, new_height) < 1:
                raise ConfigError(
                    f"dataset.img_downscale = {self.config.img_downscale} leaves nothing of {frame.image}, "
                    f"which is {width}x{height}; use a smaller divisor"
                )
            return new_width, new_height
        if self.config.img_wh is None:
            return width, height

        new_width, new_height = self.config.img_wh
        asked = f"dataset.img_wh = [{new_width}, {new_height}]"
        if new_width > width or new_height > height:
            raise ConfigError(
                f"{asked} asks for more pixels than {frame.image} has; set dataset.img_wh=[{width},{height}] or smaller"
            )
        fitting = round(height / width * new_width)
        # Either side may be the rounded one.
        if new_height != fitting and new_width != round(width / height * new_height):
            raise ConfigError(
                f"{asked} has another aspect than {frame.image}, which is {width}x{height}; "
                f"set dataset.img_wh=[{new_width},{fitting}]"
            )
        return new_width, new_height

    @functools.cached_property
    def _surface(self) -> Surface | None:
        if self.config.surface_file is None:
            return None
        path = self._root / self.config.surface_file
        if not path.is_file():
            beside = sorted(p.name for p in self._root.iterdir() if p.suffix.lower() in SURFACE_ENDINGS)
            raise ConfigError(
                f"dataset.surface_file: {path} does not exist{nearest(path.name, beside)}; "
                f"surfaces in {self._root}: {_listed(beside)}"
            )
        return read_surface(path)


def _check_root(root: Path) -> None:
    if root.is_dir():
        return
    parent = next(folder for folder in root.absolute().parents if folder.is_dir())
    if parent != root.absolute().parent:
        raise ConfigError(
            f"dataset.root_dir: neither {root} nor its parent folder exists, only {parent}; unpack it there"
        )
    scenes = sorted(folder.name for folder in parent.iterdir() if any(folder.glob("transforms_*.json")))
    hint, listed = nearest(root.name, scenes), _listed(scenes)
    raise ConfigError(f"dataset.root_dir: folder {root} does not exist{hint}; scenes beside it: {listed}")


def _transforms_file(root: Path, split: str, key: str) -> Path:
    path = root / f"transforms_{split}.json"
    if not path.is_file():
        splits = sorted(p.stem.removeprefix("transforms_") for p in root.glob("transforms_*.json"))
        raise ConfigError(f"{key}: {path} does not exist{nearest(split, splits)}; splits there: {_listed(splits)}")
    return path


def _check_alpha(frames: list[Frame], photographs: list[Photograph]) -> None:
    """All images have an alpha channel or none: half a set of masks is no set of masks."""
    with_alpha = [photograph.pixels.shape[2] == 4 for photograph in photographs]
    if any(with_alpha) and not all(with_alpha):
        has, lacks = frames[with_alpha.index(True)].image, frames[with_alpha.index(False)].image
        raise ConfigError(f"{lacks} has no alpha channel, but {has} has one; give all images an alpha channel or none")


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
