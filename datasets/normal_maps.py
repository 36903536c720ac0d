"""Normal maps beside photographs: from files of several frames, as unit vectors of the scene.

In OpenCV's camera frame (x right, y down, z forward) what is seen has normals with z < 0; in OpenGL's (x right, y up, z
back) with z > 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from datasets.arrays import read_array
from datasets.views import Views
from utils.registry import ConfigError

NormalMap = Float32[np.ndarray, "_ _ 3"]
"""Rows and columns of unit normals of the scene, 0 where unknown."""
NormalFrame = Literal["camera-opencv", "camera-opengl", "world"]
TOLERANCE = 0.1
"""By which lengths of normals may differ from 1. Bytes round by 0.01; a grey pixel, which means nothing in a coded map,
has length 0.87 as it is."""


def turn_of(frame: NormalFrame, pose: Float[Tensor, "3 4"], world: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """The rotation from the frame of a file to the scene.

    Args:
        frame: of the normals in the file.
        pose: camera to scene, OpenGL.
        world: rotation from the world of the file to the scene.
    """
    if frame == "world":
        return world
    axes = pose.new_tensor([1, -1, -1]) if frame == "camera-opencv" else pose.new_ones(3)
    return pose[:, :3] * axes


def read_normals(path: Path, turn: Float[Tensor, "3 3"]) -> NormalMap:
    """The normals in a file: NumPy's `.npy`, or an image of 8 or 16 bits.

    Images hold (n + 1) / 2. Arrays, [H, W, 3] or [3, H, W], hold n or (n + 1) / 2, whichever has unit length.

    Args:
        turn: from the frame of the file to the scene.

    Returns:
        Unit normals; 0 where those in the file are far from unit length, or where an image is black.

    Raises:
        ConfigError: the file is missing, damaged, of another shape, or without normals.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; copy the normal maps there or set dataset.use_normals=false")
    values = _array(path) if path.suffix == ".npy" else 2 * _image(path) - 1
    length = np.linalg.norm(values, axis=-1)
    is_known = np.abs(length - 1) < TOLERANCE
    if not is_known.any():
        raise ConfigError(f"{path} holds no vectors of length 1; expected normals, or (normal + 1) / 2, in x, y, z")
    normal = np.where(is_known[..., None], values / np.maximum(length, 1e-6)[..., None], 0)
    return (normal @ turn.numpy().T).astype(np.float32)


def as_stored(views: Views, maps: Sequence[NormalMap | None]) -> Float[Tensor, "P 3"]:
    """Normals as `Views.normal` has them.

    Args:
        views: sizes and masks; where targets show the object alone, normals beside it are 0.
        maps: at the size of the images; None for images without.
    """
    n_pixels = views.offsets.diff().tolist()
    parts = [
        torch.zeros(n, 3) if normal is None else torch.from_numpy(normal).reshape(n, 3)
        for n, normal in zip(n_pixels, maps, strict=True)
    ]
    normals = torch.cat(parts)
    if views.apply_mask and views.alpha is not None:
        normals[views.alpha < 128] = 0
    return normals


def _array(path: Path) -> Float32[np.ndarray, "H W 3"]:
    values = read_array(path)
    if values.ndim == 3 and values.shape[0] == 3 and values.shape[2] != 3:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] != 3:
        raise ConfigError(
            f"{path} has shape {values.shape}; expected normals as [height, width, 3] or [3, height, width]"
        )
    decoded = 2 * values - 1
    as_they_are, as_coded = (np.abs(np.linalg.norm(one, axis=-1) - 1) < TOLERANCE for one in (values, decoded))
    return values if as_they_are.sum() >= as_coded.sum() else decoded


def _image(path: Path) -> Float32[np.ndarray, "H W 3"]:
    """RGB in [0, 1]. Pillow would keep 8 of 16 bits."""
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype not in (np.uint8, np.uint16) or values.ndim != 3:
        raise ConfigError(f"{path} is no colour image of 8 or 16 bits; expected normals as PNG, or as .npy")
    rgb = cv2.cvtColor(values[:, :, :3], cv2.COLOR_BGR2RGB)
    return rgb.astype(np.float32) / np.iinfo(values.dtype).max
