"""Scenes in the layout of NeRF-Synthetic: `transforms_<split>.json` beside folders of PNG images.

Images with an alpha channel are cut out by it; images without one have no masks. The world is the file's: nothing
is moved or scaled, z is up, and the object is expected around the origin.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import datasets
from datasets.folders import check_root, listed
from datasets.frame_maps import FrameMapConfig, with_maps
from datasets.frames import Frame, frames_of, read_transforms, require_images
from datasets.photograph_config import PhotographConfig
from datasets.photographs import Shot, read_photographs
from datasets.surfaces import ENDINGS, read_surface
from datasets.views import Views
from utils.registry import ConfigError, nearest
from utils.types import Surface


@datasets.register("blender")
class Blender:
    """One folder of posed images, as Blender's NeRF exporter writes it."""

    @dataclass(kw_only=True)
    class Config(PhotographConfig, FrameMapConfig):
        scene: str
        """Name of the scene; other keys refer to it."""
        root_dir: str
        """Folder with the transforms_<split>.json files."""
        train_split: str = "train"
        """Which transforms_<split>.json holds the training views."""
        val_split: str = "val"
        """Which transforms_<split>.json holds the validation views."""
        test_split: str = "test"
        """Which transforms_<split>.json holds the test views."""
        surface_file: str | None = None
        """Mesh or point cloud of the true surface in scene coordinates, relative to root_dir, to measure against."""

    def __init__(self, config: Config):
        self.config = config
        self._root = Path(config.root_dir)

    def views(self, split: str) -> Views:
        """The views of split "train", "val" or "test".

        Raises:
            ConfigError: something is missing, broken or contradictory; the message names it.
        """
        check_root(self._root, lambda folder: any(folder.glob("transforms_*.json")))
        key = f"{split}_split"
        path = _transforms_file(self._root, getattr(self.config, key), f"dataset.{key}")
        frames = require_images(frames_of(read_transforms(path), path))
        shots = with_maps([_shot(frame) for frame in frames], frames, self.config)
        views = read_photographs(shots, self.config, f"Reading {split} views")
        return replace(views, surface=self._surface)

    @functools.cached_property
    def _surface(self) -> Surface | None:
        if self.config.surface_file is None:
            return None
        path = self._root / self.config.surface_file
        if not path.is_file():
            beside = sorted(p.name for p in self._root.iterdir() if p.suffix.lower() in ENDINGS)
            raise ConfigError(
                f"dataset.surface_file: {path} does not exist{nearest(path.name, beside)}; "
                f"surfaces in {self._root}: {listed(beside)}"
            )
        return read_surface(path)


def _shot(frame: Frame) -> Shot:
    return Shot(frame.where, frame.image, frame.pose.float(), frame.lens, frame.file("mask_path"))


def _transforms_file(root: Path, split: str, key: str) -> Path:
    path = root / f"transforms_{split}.json"
    if not path.is_file():
        splits = sorted(p.stem.removeprefix("transforms_") for p in root.glob("transforms_*.json"))
        raise ConfigError(f"{key}: {path} does not exist{nearest(split, splits)}; splits there: {listed(splits)}")
    return path
