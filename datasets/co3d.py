"""Videos around objects in the layout of CO3D, versions 1 and 2: one sequence, or several of a category.

Cameras are PyTorch3D's and are converted here, once. Photographs may be cut around their objects, which moves
principal points and nothing else. Depth maps hold depths along the optical axis; `Views.depth` are distances along
rays.

Several sequences keep the common coordinates that CO3D gives to a category, with one similarity to the scene, so that
sizes compare; `Views.scene` tells them apart.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets import datasets
from datasets.cameras import Cameras
from datasets.capture import Capture, CaptureConfig
from datasets.capture_reader import CaptureReader
from datasets.co3d_files import FrameAnnotation, Listed, read_eval_batches, read_frames, read_sequences, read_set_list
from datasets.co3d_selection import choose_sequences, divide, find_category, thinned
from datasets.crop import Crop
from datasets.depth_maps import read_half_floats
from datasets.folders import some
from datasets.frames import inside, rigid, usable
from datasets.lenses import Lens
from datasets.normalize import NormalizeConfig, normalize, points_to_scene, to_scene
from datasets.photographs import Shot
from datasets.points import Cloud, SparsePoints, read_cloud
from datasets.pytorch3d import from_pytorch3d
from datasets.region import ball_around, region_in_sight
from utils.registry import ConfigError
from utils.similarity import scale_of


@datasets.register("co3d")
class Co3d(CaptureReader):
    """A category of CO3D, or a sequence of it."""

    @dataclass(kw_only=True)
    class Config(CaptureConfig, NormalizeConfig):
        root_dir: str
        """Folder with the categories."""
        category: str
        """Name of the category, a folder in root_dir."""
        sequence: str | list[str] | None = None
        """Name of the sequence, a list of several, or `all`, for models that know scenes apart; null takes the only
        one there is."""
        set_list: str | None = None
        """Which frames are trained and tested on: in version 2 set_lists/set_lists_<this>.json, in version 1 `train`
        or `test`, whose known frames are trained and whose unseen ones tested on; null leaves it to eval_every."""
        eval_batches: str | None = None
        """File with evaluation batches, relative to the category's folder, whose targets are then the test views."""
        max_frames: int | None = None
        """Frames to take of a sequence (of each split of a set list), evenly spread; null takes all."""
        val_split: Literal["train", "val", "test"] = "val"
        """What is validated on without eval_every: a split of the set list, or, without one, all photographs
        (train, val) or the camera path (test)."""
        up_est_method: Literal["ground", "camera", "none"] = "camera"
        """Where z points: off the plane that most points of the cloud lie in (ground; most clouds are of the object
        alone), along the mean of the cameras' up axes (camera), as in the files (none)."""
        use_masks: bool = True
        """Whether masks are read."""
        mask_threshold: float = 0.5
        """Probability from which on a pixel of a mask is object; 0 takes probabilities for shares of pixels."""
        use_depth: bool = False
        """Whether depth maps are read."""
        box_crop: bool = True
        """Whether photographs are cut around their object."""
        box_crop_context: float = 0.3
        """Width and height that this leaves around the object's box, as a share of those of the box."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.set_list is not None and self.eval_every is not None:
                raise ValueError("set_list and eval_every both choose what is held out; set one of them to null")
            if self.set_list is None and self.eval_batches is not None:
                raise ValueError("eval_batches replaces the test views of a set list; give set_list, too")
            if self.box_crop and self.img_wh is not None:
                raise ValueError("img_wh is one size, but crops have many; set img_max_side instead")
            if self.max_frames is not None and self.max_frames < 1:
                raise ValueError(f"max_frames = {self.max_frames}; expected at least 1")
            if not 0 <= self.mask_threshold <= 1 or not self.box_crop_context >= 0:
                raise ValueError("expected mask_threshold in [0, 1] and box_crop_context of at least 0")

    config: Config

    def _read(self) -> Capture:
        config = self.config
        category = find_category(self._root, config.category)
        clouds, lists = read_sequences(category), self._lists(category)
        if lists is None:
            sequences = choose_sequences(config.sequence, list(clouds), str(category))
            frames, rows = thinned(self._usable(read_frames(category, sequences)), config.max_frames), None
        else:
            listed = dict.fromkeys(entry.sequence for entries in lists.values() for entry in entries)
            where = f"{category}, set list '{config.set_list}'"
            sequences = choose_sequences(config.sequence, list(listed), where)
            frames, rows = divide(self._usable(read_frames(category, sequences)), lists, config.max_frames)
            if not rows[config.source("train")]:
                raise ConfigError(f"{where} has no frames of {some(sequences)} to train on; choose another sequence")
        return self._placed(frames, rows, {sequence: self._cloud(clouds.get(sequence)) for sequence in sequences})

    def _lists(self, category: Path) -> dict[str, list[Listed]] | None:
        """The frames of each split, or None where no set list is asked for."""
        if self.config.set_list is None:
            return None
        lists = read_set_list(category, self.config.set_list)
        if self.config.eval_batches is not None:
            lists["test"] = [batch[0] for batch in read_eval_batches(category / self.config.eval_batches)]
        return lists

    def _usable(self, frames: list[FrameAnnotation]) -> list[FrameAnnotation]:
        """The frames that have a camera, a photograph and, where masks count, an object."""
        checks: dict[str, Callable[[FrameAnnotation], bool]] = {
            "frames are without a camera": lambda frame: frame.viewpoint is not None,
            "images are missing": lambda frame: self._path(frame.image, frame).is_file(),
        }
        if self.config.use_masks:
            checks["masks are empty"] = lambda frame: frame.mass is None or frame.mass > 1
        for problem, is_usable in checks.items():
            left = usable(frames, is_usable, problem)
            if not left:
                raise ConfigError(f"{frames[0].where}, and all others: {problem}; unpack the category again")
            frames = left
        return frames

    def _cloud(self, name: str | None) -> Cloud:
        return (None, None) if name is None else read_cloud(inside(self._root, name, self.config.category))

    def _placed(
        self, frames: list[FrameAnnotation], rows: dict[str, list[int]] | None, clouds: dict[str, Cloud]
    ) -> Capture:
        """The capture in scene coordinates; `clouds` are those of its sequences."""
        config, cameras = self.config, _cameras(frames)
        to_dataset = self._to_dataset(frames, cameras, clouds)
        scale, names = scale_of(to_dataset), list(clouds)
        shots = []
        for row, (frame, pose) in enumerate(zip(frames, to_scene(cameras.pose, to_dataset), strict=True)):
            shot = self._shot(frame, pose, Lens(cameras.focal[row].float(), cameras.center[row].float()), scale)
            if len(names) > 1:
                name = f"{frame.sequence}/{shot.image.stem}"
                shot = replace(shot, scene=names.index(frame.sequence), name=name)
            shots.append(shot)
        if config.use_depth and not any(shot.depth for shot in shots):
            raise ConfigError(f"{frames[0].where}, and all others: there is no depth map; set dataset.use_depth=false")
        position, color = clouds[names[0]] if len(names) == 1 else (None, None)
        points = None if position is None else SparsePoints.unobserved(points_to_scene(position, to_dataset), color)
        fits_masks = len(names) == 1 and config.center_est_method == "region"
        return Capture(shots, config, to_dataset, points, fits_masks, lists=rows, scene_names=names)

    def _to_dataset(
        self, frames: list[FrameAnnotation], cameras: Cameras, clouds: dict[str, Cloud]
    ) -> Float64[Tensor, "4 4"]:
        """Scene to dataset; the unit ball holds the regions of interest of all sequences."""
        tangent, regions = 0.5 * cameras.size / cameras.focal, []
        for sequence, (position, _) in clouds.items():
            own = torch.tensor([frame.sequence == sequence for frame in frames])
            if own.any():
                regions.append(region_in_sight(cameras.pose[own], position, tangent[own]))
        positions = [position for position, _ in clouds.values() if position is not None]
        return normalize(cameras.pose, torch.cat(positions) if positions else None, self.config, ball_around(regions))

    def _shot(self, frame: FrameAnnotation, pose: Tensor, lens: Lens, scale: float) -> Shot:
        """One frame as it is to be read; `scale` are dataset units in a scene unit."""
        config, depth = self.config, None
        if config.use_masks and frame.mask is None:
            raise ConfigError(f"{frame.where} has no mask; set dataset.use_masks=false, or leave out the sequence")
        if config.box_crop and not config.use_masks and frame.box is None:
            raise ConfigError(
                f"{frame.where} has neither a mask nor a box around the object; set dataset.box_crop=false"
            )
        if config.use_depth and frame.depth is not None:
            known = None if frame.depth.mask is None else self._path(frame.depth.mask, frame)
            path, factor = self._path(frame.depth.path, frame), frame.depth.factor / scale
            depth = functools.partial(read_half_floats, path, factor, known)
        return Shot(
            where=frame.where,
            image=self._path(frame.image, frame),
            pose=pose,
            lens=_at_size(lens, frame),
            mask=self._path(frame.mask, frame) if config.use_masks and frame.mask is not None else None,
            mask_threshold=config.mask_threshold,
            crop=Crop(config.box_crop_context, frame.box) if config.box_crop else None,
            depth=depth,
            time=frame.time,
        )

    def _path(self, name: str, frame: FrameAnnotation) -> Path:
        return inside(self._root, name, frame.where)


def _cameras(frames: Sequence[FrameAnnotation]) -> Cameras:
    """Cameras in dataset coordinates, double precision, for the photographs in the files."""
    viewpoints = [frame.viewpoint for frame in frames if frame.viewpoint is not None]
    assert len(viewpoints) == len(frames)

    def stacked(key: str) -> Tensor:
        return torch.stack([getattr(viewpoint, key) for viewpoint in viewpoints])

    size = torch.tensor([frame.size for frame in frames])
    cameras = from_pytorch3d(
        stacked("rotation"), stacked("translation"), stacked("focal"), stacked("principal_point"), size
    )
    pose = zip(cameras.pose.tolist(), frames, strict=True)
    return replace(cameras, pose=torch.stack([rigid(one, f"{frame.where}: the viewpoint") for one, frame in pose]))


def _at_size(lens: Lens, frame: FrameAnnotation) -> Callable[[int, int], Lens]:
    """The lens, for photographs of the size that the annotation tells."""

    def at_size(width: int, height: int) -> Lens:
        if (width, height) != frame.size:
            said = "x".join(map(str, frame.size))
            raise ConfigError(f"{frame.where}: {frame.image} is {width}x{height}, not {said}; unpack it again")
        return lens

    return at_size
