"""Captures in a `transforms.json`, as Instant-NGP and nerfstudio write them.

Poses are camera to world in OpenGL's convention. Dataset coordinates are those before `applied_transform` and
`applied_scale`, by which nerfstudio notes how it turned and scaled the world of COLMAP; without them, those of the
file. Instant-NGP's `scale`, `offset` and `aabb_scale` say how that program places the scene and mean nothing here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets import datasets
from datasets.capture import Capture, CaptureConfig
from datasets.capture_reader import CaptureReader
from datasets.folders import check_level, check_root
from datasets.frame_maps import FrameMapConfig, with_maps
from datasets.frames import Frame, frames_of, inside, number, read_transforms, rigid, with_images
from datasets.normalize import NormalizeConfig, normalize, points_to_scene, to_scene
from datasets.photographs import Shot, image_size
from datasets.points import Cloud, SparsePoints, read_cloud
from datasets.region import region_in_sight
from utils.registry import ConfigError

FILE = "transforms.json"


@datasets.register("transforms")
class Transforms(CaptureReader):
    """One folder with transforms.json and the images that it names."""

    @dataclass(kw_only=True)
    class Config(CaptureConfig, NormalizeConfig, FrameMapConfig):
        up_est_method: Literal["ground", "camera", "none"] = "camera"
        """Where z points: off the plane that most sparse points lie in (ground; these files seldom come with points),
        along the mean of the cameras' up axes (camera), as in the file (none)."""

    config: Config

    def _read(self) -> Capture:
        root, config = self._root, self.config
        check_root(root, _is_set)
        if not _is_set(root) and any(root.glob("transforms_*.json")):
            raise ConfigError(f"dataset.root_dir: {root} holds a file for each split; set dataset.name=blender")
        check_level(root, _is_set, FILE)
        content = read_transforms(root / FILE)
        frames = sorted(with_images(frames_of(content, root / FILE)), key=lambda frame: str(frame.image))
        poses = torch.stack([frame.pose for frame in frames])
        cloud, color = _read_cloud(root, content)
        region = None
        if config.center_est_method == "region":
            tangent = torch.stack([_tangent(frame) for frame in frames])
            region = region_in_sight(poses, cloud, tangent)
        to_file = normalize(poses, cloud, config, region)
        shots = [
            Shot(frame.where, frame.image, pose, frame.lens, frame.file("mask_path"))
            for frame, pose in zip(frames, to_scene(poses, to_file), strict=True)
        ]
        points = None if cloud is None else SparsePoints.unobserved(points_to_scene(cloud, to_file), color)
        to_dataset = _to_original(content, str(root / FILE)) @ to_file
        shots = with_maps(shots, frames, config, to_file, to_dataset)
        return Capture(shots, config, to_dataset, points, fits_masks=region is not None)


def _is_set(folder: Path) -> bool:
    return (folder / FILE).is_file()


def _tangent(frame: Frame) -> Float[Tensor, "2"]:
    """Half of width and height of the image over the focal lengths."""
    width, height = image_size(frame.image)
    return 0.5 * torch.tensor([width, height]) / frame.lens(width, height).focal


def _read_cloud(root: Path, content: Mapping[str, Any]) -> Cloud:
    """Positions, in the world of the file, and colours of the sparse points that nerfstudio puts beside it."""
    name = content.get("ply_file_path")
    return (None, None) if name is None else read_cloud(inside(root, name, str(root / FILE)))


def _to_original(content: Mapping[str, Any], where: str) -> Float64[Tensor, "4 4"]:
    """From the world of the file to the one it was made from, which nerfstudio first turned and then scaled."""
    applied = torch.eye(4, dtype=torch.float64)
    if "applied_transform" in content:
        applied[:3] = rigid(content["applied_transform"], f"{where}: applied_transform")
    if "applied_scale" in content:
        applied[:3] *= number(content, "applied_scale", where, (0, math.inf))
    return torch.linalg.inv(applied)
