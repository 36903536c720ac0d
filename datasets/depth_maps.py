"""Depth maps beside photographs: from files, and as distances along the rays of pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from datasets.arrays import read_array
from datasets.views import Views
from utils.registry import ConfigError

DepthMap = Float32[np.ndarray, "_ _"]
"""Rows and columns of depths along the optical axis."""


def read_half_floats(path: Path, factor: float, mask: Path | None = None) -> DepthMap:
    """Depths that a 16-bit PNG holds as the bits of half-precision numbers, as in CO3D.

    Args:
        factor: by which they are multiplied.
        mask: image that is not zero where depths are to be believed.

    Returns:
        Depths; 0 where unknown.

    Raises:
        ConfigError: a file is missing, damaged, or of another kind or size.
    """
    bits = _grey(path)
    if bits.dtype.kind == "b" or bits.dtype.itemsize < 2:
        raise ConfigError(f"{path} has 8 bits a pixel; expected half-precision depths as a 16-bit PNG")
    depth = bits.astype(np.uint16).view(np.float16).astype(np.float32) * np.float32(factor)
    is_known = np.isfinite(depth) & (depth > 0)
    if mask is not None:
        believed = _grey(mask)
        if believed.shape != depth.shape:
            raise ConfigError(f"depth mask {mask} has another size than {path}; take that of the same depth map")
        is_known &= believed > 0
    return np.where(is_known, depth, np.float32(0))


def read_depths(path: Path, factor: float) -> DepthMap:
    """Depths as plain numbers: a one-channel image of integers or floats (PNG, TIFF), or NumPy's `.npy`, [H, W].

    Args:
        factor: by which they are multiplied.

    Returns:
        Depths; 0 where they are not positive or not finite.

    Raises:
        ConfigError: the file is missing, damaged or of another shape.
    """
    if path.suffix == ".npy" and path.is_file():
        values = read_array(path).squeeze()
        if values.ndim != 2:
            raise ConfigError(f"{path} has shape {values.shape}; expected depths as [height, width]")
    else:
        values = _grey(path).astype(np.float32)
    depth = values * np.float32(factor)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def along_rays(views: Views, maps: Sequence[DepthMap | None]) -> Float[Tensor, "P"]:
    """Distances along the rays of pixels, as `Views.depth` has them.

    Args:
        views: cameras and masks; where targets show the object alone, distances beside it are 0.
        maps: depths along the optical axis, world units, at the size of the images, 0 where unknown; None for images
            without.
    """
    parts = []
    for view, depth in enumerate(maps):
        pixels = slice(*views.offsets[view : view + 2].tolist())
        rays = views.image(view, torch.zeros(3)).rays
        if depth is None:
            parts.append(torch.zeros(len(rays)))
            continue
        known = torch.from_numpy(depth).reshape(-1)
        if views.apply_mask and views.alpha is not None:
            known = known.where(views.alpha[pixels] >= 128, 0.0)
        ahead = -(rays.directions @ views.cameras.pose[view, :, 2])
        parts.append((known / ahead).where(known > 0, 0.0))
    return torch.cat(parts)


def _grey(path: Path) -> np.ndarray:
    """The values of an image with one channel."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; copy the depth maps there or set dataset.use_depth=false")
    try:
        with Image.open(path) as image:
            values = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as an image: {error}; replace the file") from error
    if values.ndim != 2:
        raise ConfigError(f"{path} has {values.shape[2]} channels; expected one")
    return values
