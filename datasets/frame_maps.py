"""Depth and normal maps that a `transforms*.json` names beside its photographs.

Keys of frames are nerfstudio's `depth_file_path`, depth along the optical axis, and `normal_file_path`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float, Float64
from torch import Tensor

from datasets.depth_maps import DepthMap, read_depths
from datasets.frames import Frame
from datasets.normal_maps import NormalFrame, NormalMap, read_normals, turn_of
from datasets.photographs import Shot
from utils.registry import ConfigError
from utils.similarity import IDENTITY, rotation_of, scale_of

DEPTH, NORMAL, UNIT = "depth_file_path", "normal_file_path", "depth_unit_scale_factor"


@dataclass(kw_only=True)
class FrameMapConfig:
    """Keys of readers of transforms files."""

    use_depth: bool = False
    """Whether depth maps that the file names are read."""
    depth_unit_scale_factor: float = 1e-3
    """Units of the cameras in a unit of the depth maps, where the file has no key of this name; 0.001: millimetres and
    metres."""
    use_normals: bool = False
    """Whether normal maps that the file names are read."""
    normal_frame: NormalFrame = "camera-opencv"
    """Axes that normals refer to: those of the camera with x right, y down, z forward (camera-opencv), or with x right,
    y up, z back (camera-opengl), or those of the file's world (world)."""


def with_maps(
    shots: Sequence[Shot],
    frames: Sequence[Frame],
    config: FrameMapConfig,
    to_file: Float64[Tensor, "4 4"] = IDENTITY,
    to_dataset: Float64[Tensor, "4 4"] = IDENTITY,
) -> list[Shot]:
    """The shots of frames with the maps that the configuration asks for.

    Args:
        to_file: scene to the world of the file, which normals may refer to.
        to_dataset: scene to dataset, in whose units depth maps are, once multiplied.

    Raises:
        ConfigError: no frame names such a map, or a unit is no number.
    """
    both = list(zip(shots, frames, strict=True))
    if config.use_depth:
        units = scale_of(to_dataset)
        both = [(replace(shot, depth=_depth(frame, config, units)), frame) for shot, frame in both]
        _check(both, DEPTH, "dataset.use_depth")
    if config.use_normals:
        world = rotation_of(to_file).T.float()
        both = [(replace(shot, normal=_normal(shot, frame, config, world)), frame) for shot, frame in both]
        _check(both, NORMAL, "dataset.use_normals")
    return [shot for shot, _ in both]


def _depth(frame: Frame, config: FrameMapConfig, units: float) -> Callable[[], DepthMap] | None:
    path, said = frame.file(DEPTH), frame.number(UNIT)
    factor = config.depth_unit_scale_factor if said is None else said
    if not factor > 0:
        raise ConfigError(f"{frame.where}: '{UNIT}' is {factor:g}; expected more than 0, such as 0.001 for millimetres")
    return None if path is None else functools.partial(read_depths, path, factor / units)


def _normal(
    shot: Shot, frame: Frame, config: FrameMapConfig, world: Float[Tensor, "3 3"]
) -> Callable[[], NormalMap] | None:
    path = frame.file(NORMAL)
    return (
        None if path is None else functools.partial(read_normals, path, turn_of(config.normal_frame, shot.pose, world))
    )


def _check(both: list[tuple[Shot, Frame]], key: str, option: str) -> None:
    if all(frame.file(key) is None for _, frame in both):
        raise ConfigError(f"{both[0][1].where}, and all others: there is no key '{key}'; set {option}=false")
