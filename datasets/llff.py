"""Captures in the layout of LLFF: `images` and poses_bounds.npy, as for forward-facing scenes and Mip-NeRF 360.

Row i of the file belongs to the i-th photograph by name: a 3x5 matrix with the camera's axes that point down, right and
backwards, its place, and height, width and focal length of the photograph; then two depths between which the
photograph shows things (https://github.com/Fyusion/LLFF). Lenses are pinholes with the axis in the middle.

Nothing is warped. Where all cameras look the same way, z is up, y leads away from them, and the unit ball begins at the
nearest depth; it ends at the farthest or, in deep scenes, before that. So models need a background that is learned.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from datasets import datasets
from datasets.capture import Capture, CaptureConfig
from datasets.capture_reader import CaptureReader
from datasets.folders import IMAGE_ENDINGS, check_images, check_level, check_root
from datasets.frames import rigid
from datasets.lenses import Lens, at_sizes
from datasets.normalize import NormalizeConfig, normalize, to_scene
from datasets.photographs import Shot
from datasets.region import common_direction, region_in_sight
from utils.registry import ConfigError
from utils.similarity import scale_of

FILE = "poses_bounds.npy"


@datasets.register("llff")
class Llff(CaptureReader):
    """One folder with poses_bounds.npy."""

    @dataclass(kw_only=True)
    class Config(CaptureConfig, NormalizeConfig):
        eval_every: int | None = 8
        """Hold out every so-manieth photograph, from the first on, for validation and test; null trains on all."""
        up_est_method: Literal["camera", "none"] = "camera"
        """Where z points: along the mean of the cameras' up axes (camera), as in the file (none)."""

    config: Config

    def _read(self) -> Capture:
        root, config = self._root, self.config
        check_root(root, _is_set)
        check_level(root, _is_set, FILE)
        poses, size, focal, bounds = _read_cameras(root / FILE)
        images, divisor = _photographs(root, len(poses), config.img_downscale)
        is_placed = config.center_est_method == "region"
        region = region_in_sight(poses, None, 0.5 * size / focal, bounds) if is_placed else None
        to_dataset = normalize(poses, None, config, region)
        forward = common_direction(poses)
        if is_placed and forward is not None:
            to_dataset = to_dataset @ _turn_to_y(to_dataset[:3, :3].T @ forward)

        shots = []
        for row, pose in enumerate(to_scene(poses, to_dataset)):
            where, (width, height) = f"{root / FILE}, row {row}", size[row].tolist()
            lens = Lens(focal[row].float().repeat(2), 0.5 * size[row])
            shots.append(Shot(where, images[row], pose, at_sizes(lens, width, height, divisor, where)))
        if divisor > 1:
            config = replace(config, img_downscale=None)
        scene_bounds = (bounds / scale_of(to_dataset)).float()
        return Capture(shots, config, to_dataset, fits_masks=is_placed, bounds=scene_bounds)


def _is_set(folder: Path) -> bool:
    return (folder / FILE).is_file()


def _read_cameras(
    path: Path,
) -> tuple[Float64[Tensor, "V 3 4"], Int[Tensor, "V 2"], Float64[Tensor, "V 1"], Float64[Tensor, "V 2"]]:
    """Camera to world (OpenGL), width and height, focal length in pixels, nearest and farthest depth."""
    try:
        rows = np.load(path).astype(np.float64)
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no array of numbers ({error}); copy it again") from error
    if rows.ndim != 2 or rows.shape[1] != 17 or len(rows) == 0 or not np.isfinite(rows).all():
        raise ConfigError(f"{path} holds an array of shape {rows.shape}; expected rows of 17 finite numbers")
    matrix, bounds = torch.from_numpy(rows[:, :15].reshape(-1, 3, 5)), torch.from_numpy(rows[:, 15:])
    down, right, back, place, image = matrix.unbind(-1)
    poses = torch.stack((right, -down, back, place), dim=-1)
    for row, (near, far) in enumerate(bounds.tolist()):
        if not 0 < near < far:
            raise ConfigError(f"{path}, row {row}: depths from {near:g} to {far:g}; expected 0 < nearest < farthest")
        if image[row].min() < 1:
            raise ConfigError(f"{path}, row {row}: height, width, focal length {image[row].tolist()}; expected pixels")
        poses[row] = rigid(poses[row].tolist(), f"{path}, row {row}: the pose")
    return poses, image[:, [1, 0]].round().long(), image[:, 2:], bounds


def _photographs(root: Path, n_cameras: int, img_downscale: int | None) -> tuple[list[Path], int]:
    """The photographs by name and how many times smaller they are: shrunk beforehand where there are such."""
    folder, shrunk = root / "images", root / f"images_{img_downscale}"
    divisor = 1
    if img_downscale is not None and shrunk.is_dir():
        folder, divisor = shrunk, img_downscale
    check_images(folder, root / FILE)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    if len(files) != n_cameras:
        raise ConfigError(
            f"{folder} holds {len(files)} images, but {root / FILE} {n_cameras} cameras; expected one image per camera"
        )
    return files, divisor


def _turn_to_y(direction: Float64[Tensor, "3"]) -> Float64[Tensor, "4 4"]:
    """A turn around z after which what was y lies below or above the given direction."""
    x, y = (direction[:2] / direction[:2].norm()).tolist() if direction[:2].norm() > 1e-9 else (0.0, 1.0)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[y, x], [-x, y]])
    return turn
