"""Scenes in the layout of NeuS and IDR, as for DTU and BlendedMVS: `image`, `mask` and an .npz file with cameras.

For photograph i the file holds `world_mat_i`, which projects world coordinates to pixels, and `scale_mat_i`, which
takes the unit ball around the object to the world. Scene coordinates are those of the unit ball, dataset coordinates
those of the world: millimetres in DTU.
"""

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from datasets import datasets
from datasets.capture import Capture, CaptureConfig
from datasets.capture_reader import CaptureReader
from datasets.folders import IMAGE_ENDINGS, check_level, check_root
from datasets.lenses import Lens
from datasets.photographs import Shot, image_size
from utils.notice import notice
from utils.registry import ConfigError

CAMERAS_FILES = ("cameras_sphere.npz", "cameras.npz")
"""Names that NeuS and IDR give to the file."""
SKEW_TOLERANCE = 1e-3
"""Pixels."""
SIMILARITY_TOLERANCE = 1e-3
"""Relative to the scale: files hold float32."""
SINGULAR = 1e-9
"""Smallest over largest entry of the diagonal of intrinsics; 1e-3 is usual."""
MIDDLE = (0.2, 0.8)
"""Where principal points lie in photographs as they come from a camera, in shares of width and height."""


@datasets.register("dtu")
class Dtu(CaptureReader):
    """One folder, as NeuS or IDR preprocess it."""

    @dataclass(kw_only=True)
    class Config(CaptureConfig):
        cameras_file: str | None = None
        """File with the cameras, relative to root_dir; null takes cameras_sphere.npz or, without it, cameras.npz."""

    config: Config

    def _read(self) -> Capture:
        check_root(self._root, _is_scene)
        check_level(self._root, _is_scene, "folder 'image' with a file such as cameras_sphere.npz beside it")
        path = self._cameras_file()
        world, scale = _read_matrices(path)
        images = _numbered_files(self._root / "image", list(world), path)
        has_masks = (self._root / "mask").is_dir()
        masks = _numbered_files(self._root / "mask", list(world), path) if has_masks else None

        shots, skews = [], []
        for row, (number, matrix) in enumerate(world.items()):
            where = f"{path}, world_mat_{number}"
            pose, lens, skew = _decompose((matrix @ scale)[:3], where)
            skews.append(skew)
            shots.append(Shot(where, images[row], pose, _at_any_size(lens), None if masks is None else masks[row]))
        if max(skews) > SKEW_TOLERANCE:
            notice(f"{path}: pixels are skewed by up to {max(skews):.3g} px, which is ignored")
        _tell_resized(shots[0])
        return Capture(shots, self.config, torch.from_numpy(scale), fills_unit_ball=True)

    def _cameras_file(self) -> Path:
        names = CAMERAS_FILES if self.config.cameras_file is None else (self.config.cameras_file,)
        path = next((self._root / name for name in names if (self._root / name).is_file()), None)
        if path is None:
            others = ", ".join(sorted(other.name for other in self._root.glob("*.npz")))
            raise ConfigError(f"{self._root / names[0]} does not exist; set dataset.cameras_file to one of {others}")
        return path


def _is_scene(root: Path) -> bool:
    return (root / "image").is_dir() and any(root.glob("*.npz"))


def _read_matrices(path: Path) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """World matrices by number, in order, and the scale matrix, all [4, 4] float64."""
    try:
        with np.load(path) as content:
            matrices = {key: np.asarray(content[key], dtype=np.float64) for key in content.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is no .npz file of matrices ({error}); copy it again") from error
    for key, matrix in matrices.items():
        if re.fullmatch(r"(world|scale)_mat_\d+", key) and (matrix.shape != (4, 4) or not np.isfinite(matrix).all()):
            problem = f"has shape {matrix.shape}" if matrix.shape != (4, 4) else "holds NaN or infinity"
            raise ConfigError(f"{path}: {key} {problem}; expected 4 rows of 4 finite numbers")
    numbers = sorted(int(found[1]) for key in matrices if (found := re.fullmatch(r"world_mat_(\d+)", key)))
    if not numbers:
        raise ConfigError(
            f"{path} holds no world_mat_0, world_mat_1, ...; set dataset.cameras_file to a file that does"
        )
    scale = _scale(matrices, numbers, path)
    return {number: matrices[f"world_mat_{number}"] for number in numbers}, scale


def _scale(matrices: dict[str, np.ndarray], numbers: list[int], path: Path) -> np.ndarray:
    keys = [f"scale_mat_{number}" for number in numbers]
    for key in keys:
        if key not in matrices:
            raise ConfigError(f"{path}: {key} is missing, the unit ball around the object; preprocess the scene again")
        if not np.allclose(matrices[key], matrices[keys[0]], rtol=1e-5):
            raise ConfigError(f"{path}: {key} differs from {keys[0]}; expected the same ball for all photographs")
    scale = matrices[keys[0]]
    linear = scale[:3, :3]
    size = np.cbrt(np.linalg.det(linear))
    is_similarity = size > 0 and np.abs(linear @ linear.T / size**2 - np.eye(3)).max() < SIMILARITY_TOLERANCE
    if not is_similarity or not np.array_equal(scale[3], (0, 0, 0, 1)):
        raise ConfigError(f"{path}: {keys[0]} is no similarity; expected a rotation times one scale, and a translation")
    return scale


def _numbered_files(folder: Path, numbers: list[int], cameras: Path) -> list[Path]:
    """The images in a folder that belong to cameras: by number where their names are numbers, else in order."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    places = numbers
    if all(file.stem.isdecimal() for file in files):
        files.sort(key=lambda file: int(file.stem))
        places = [int(file.stem) for file in files]
        if len(files) == len(numbers):
            # Some count from 1.
            places = [place - places[0] + numbers[0] for place in places]
    if places != numbers or len(files) != len(numbers):
        alone = sorted(set(numbers) ^ set(places))
        which = f" (only one of both has {', '.join(map(str, alone[:5]))}{', ...' if len(alone) > 5 else ''})"
        raise ConfigError(
            f"{folder} holds {len(files)} images, but {cameras} {len(numbers)} cameras{which if alone else ''}; "
            "expected one image per camera"
        )
    return files


def _decompose(projection: Float[np.ndarray, "3 4"], where: str) -> tuple[Float[Tensor, "3 4"], Lens, float]:
    """Camera to scene (OpenGL), lens and skew in pixels, of a matrix that projects scene coordinates to pixels.

    The matrix is K [R | t] up to a factor; K is upper triangular, R a rotation to a camera with y down and z forward
    (Hartley and Zisserman, Multiple View Geometry, sec. 6.2.4).
    """
    projection = projection * np.sign(np.linalg.det(projection[:, :3]))
    intrinsics, rotation = scipy.linalg.rq(projection[:, :3])
    signs = np.sign(np.diag(intrinsics))
    intrinsics, rotation = intrinsics * signs, signs[:, None] * rotation
    diagonal = np.diag(intrinsics)
    if diagonal.min() <= SINGULAR * diagonal.max():
        raise ConfigError(f"{where}: the matrix is singular, so no camera; preprocess the scene again")
    intrinsics = intrinsics / intrinsics[2, 2]
    center = -np.linalg.solve(projection[:, :3], projection[:, 3])
    pose = np.column_stack((rotation.T * (1, -1, -1), center))
    focal = torch.tensor([intrinsics[0, 0], intrinsics[1, 1]]).float()
    lens = Lens(focal, torch.from_numpy(intrinsics[:2, 2]).float())
    return torch.from_numpy(pose).float(), lens, abs(float(intrinsics[0, 1]))


def _at_any_size(lens: Lens) -> Callable[[int, int], Lens]:
    """The lens; the file does not say what size of photographs it is for."""
    return lambda width, height: lens


def _tell_resized(shot: Shot) -> None:
    width, height = image_size(shot.image)
    center = shot.lens(width, height).center
    share = center / torch.tensor([width, height])
    if not (MIDDLE[0] < share.min() and share.max() < MIDDLE[1]):
        notice(
            f"{shot.where}: the principal point ({center[0]:.0f}, {center[1]:.0f}) is far from the middle of "
            f"{shot.image}, which is {width}x{height}; if photographs were resized beforehand, take those that the "
            "cameras belong to, and dataset.img_downscale"
        )
