"""Photographs from files: decoded side by side, brought to size, with their masks and cameras, as `Views`.

Readers of formats say where photographs lie and how they were taken (`Shot`); what happens to pixels happens here, so
that sizes, masks and mistakes are treated alike everywhere.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from datasets.cameras import Cameras
from datasets.crop import Crop
from datasets.depth_maps import DepthMap, along_rays
from datasets.lenses import Lens
from datasets.normal_maps import NormalMap, as_stored
from datasets.photograph_config import PhotographConfig
from datasets.progress import with_progress
from datasets.views import Views, pixel_offsets
from utils.images import read_image, shrink
from utils.notice import notice
from utils.registry import ConfigError

FOCAL_RANGE = (0.05, 50)
"""Focal lengths that lenses have, in widths of their image."""
ORIENTATION = 274
"""EXIF tag that tells viewers to turn an image."""


@dataclass
class Shot:
    """One photograph before its pixels are read.

    Attributes:
        where: file and entry that describe it, for errors.
        image: the image file.
        pose: [3, 4] camera to scene, rigid, OpenGL.
        lens: gives the lens for an image of this width and height, those of the file; it raises a ConfigError where
            the lens belongs to an image of another size.
        mask: grey image of the same size, 255 where the object is (its first channel counts); None: the alpha channel
            of the image, if it has one.
        mask_threshold: value of the mask, in [0, 1], from which on a pixel is object; 0 keeps shares of pixels.
        crop: the part of the image that is used, or None for all of it; without a box it needs a mask.
        depth: reads depths along the optical axis, scene units, 0 where unknown, of the whole image at any size.
        normal: reads unit normals of the scene, 0 where unknown, of the whole image at any size.
        name: of the view; None takes that of the image file.
        scene, time: as in `Views`.
    """

    where: str
    image: Path
    pose: Float[Tensor, "3 4"]
    lens: Callable[[int, int], Lens]
    mask: Path | None = None
    mask_threshold: float = 0.0
    crop: Crop | None = None
    depth: Callable[[], DepthMap] | None = None
    normal: Callable[[], NormalMap] | None = None
    name: str | None = None
    scene: int | None = None
    time: float | None = None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, without decoding the image.

    Raises:
        ConfigError: the file is no image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise ConfigError(f"{path} is not an image that can be read; expected PNG or JPEG") from error


def read_photographs(shots: list[Shot], config: PhotographConfig, title: str) -> Views:
    """The photographs and their cameras.

    Args:
        shots: at least one.
        config: size, use of masks, place of the pixels.
        title: what the progress bar says.

    Raises:
        ConfigError: an image or mask cannot be read, sizes disagree, a lens cannot be, or only some have a mask.
    """
    # Pillow decodes without holding Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        work = pool.map(lambda shot: _photograph(shot, config), shots)
        photographs = list(with_progress(work, len(shots), title))
    _check_masks(shots, photographs)

    size = torch.tensor([photograph.pixels.shape[1::-1] for photograph in photographs])  # [V, 2]
    pose = torch.stack([shot.pose for shot in shots])
    cameras = Cameras.with_lenses(pose, [photograph.lens for photograph in photographs], size)
    _tell_unreached(cameras, shots)
    pixels = [torch.from_numpy(p.pixels.reshape(-1, p.pixels.shape[2])) for p in photographs]
    views = Views(
        cameras=cameras,
        names=[shot.name or shot.image.stem for shot in shots],
        offsets=pixel_offsets(size),
        color=torch.cat([p[:, :3] for p in pixels]),
        alpha=torch.cat([p[:, 3] for p in pixels]) if pixels[0].shape[1] == 4 else None,
        apply_mask=config.apply_mask,
        scene=_column([shot.scene for shot in shots]),
        time=_column([shot.time for shot in shots]),
        is_store_fixed=not config.load_data_on_gpu,
    )
    depths = [photograph.depth for photograph in photographs]
    if any(depth is not None for depth in depths):
        views = replace(views, depth=along_rays(views, depths))
    normals = [photograph.normal for photograph in photographs]
    return replace(views, normal=as_stored(views, normals)) if any(n is not None for n in normals) else views


@dataclass
class _Photograph:
    """RGB or RGBA pixels, the lens, depths along the optical axis and normals, at the size at which they are used."""

    pixels: UInt8[np.ndarray, "H W C"]
    lens: Lens
    depth: DepthMap | None
    normal: NormalMap | None


def _photograph(shot: Shot, config: PhotographConfig) -> _Photograph:
    pixels = read_image(shot.image)
    height, width = pixels.shape[:2]
    lens = _lens(shot, width, height)
    if shot.mask is not None:
        pixels = np.concatenate((pixels[:, :, :3], _mask(shot.mask, shot.image, width, height)), axis=2)
    maps = [None if read is None else _resampled(read(), width, height) for read in (shot.depth, shot.normal)]
    if shot.crop is not None:
        left, top, right, bottom = _window(shot, shot.crop, pixels)
        pixels, lens = pixels[top:bottom, left:right], lens.cropped(left, top)
        maps = [None if one is None else one[top:bottom, left:right] for one in maps]
        height, width = pixels.shape[:2]
    if shot.mask_threshold and pixels.shape[2] == 4:
        pixels[:, :, 3] = 255 * (pixels[:, :, 3] >= 255 * shot.mask_threshold)

    new_width, new_height = config.size_of(shot.image, width, height)
    if (new_width, new_height) != (width, height):
        lens = lens.scaled(new_width / width, new_height / height)
        shrunk = shrink(pixels, new_width, new_height)
        if not config.apply_mask:
            # What the mask hides will be seen, so the mask must not weigh the colours.
            shrunk[:, :, :3] = shrink(pixels[:, :, :3], new_width, new_height)
        pixels, maps = shrunk, [None if one is None else _resampled(one, new_width, new_height) for one in maps]
    return _Photograph(pixels, lens, *maps)


def _window(shot: Shot, crop: Crop, pixels: UInt8[np.ndarray, "H W C"]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is used of an image."""
    mask = pixels[:, :, 3] if pixels.shape[2] == 4 else None
    left, top, right, bottom = crop.window(mask, pixels.shape[1], pixels.shape[0])
    if min(right - left, bottom - top) <= 1:
        raise ConfigError(
            f"{shot.where}: the box around the object leaves {right - left}x{bottom - top} px of {shot.image}; "
            "correct its mask, or remove the frame"
        )
    return left, top, right, bottom


def _resampled(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """A map at another size; values are never mixed, because there is nothing between object and background."""
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def _column(values: Sequence[float | None]) -> Tensor | None:
    """Numbers of views, or None where one is unknown."""
    return None if any(value is None for value in values) else torch.tensor(values)


def _lens(shot: Shot, width: int, height: int) -> Lens:
    try:
        lens = shot.lens(width, height)
    except ConfigError as error:
        raise ConfigError(f"{error}{_turned(shot, width, height)}") from error
    low, high = (share * width for share in FOCAL_RANGE)
    if not (lens.focal.isfinite().all() and low <= lens.focal.min() and lens.focal.max() <= high):
        raise ConfigError(
            f"{shot.where}: focal lengths {lens.focal[0]:g}, {lens.focal[1]:g} px in an image {width} px wide; "
            f"expected {low:g} to {high:g}, estimate the camera again"
        )
    if not (lens.center.isfinite().all() and lens.distortion.isfinite().all()):
        raise ConfigError(f"{shot.where}: the lens holds NaN or infinity; estimate the camera again")
    return lens


def _turned(shot: Shot, width: int, height: int) -> str:
    """A hint where the lens would fit the image as viewers show it, turned by a quarter."""
    with Image.open(shot.image) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
    if orientation not in (5, 6, 7, 8):
        return ""
    try:
        shot.lens(height, width)
    except ConfigError:
        return ""
    return f"; its EXIF orientation {orientation} turns it for viewers, so save it turned and without that tag"


def _mask(path: Path, image: Path, width: int, height: int) -> UInt8[np.ndarray, "H W 1"]:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; it is the mask of {image}")
    mask = read_image(path)[:, :, :1]
    if mask.shape[:2] != (height, width):
        raise ConfigError(
            f"mask {path} is {mask.shape[1]}x{mask.shape[0]}, but {image} is {width}x{height}; resize the mask"
        )
    return mask


def _check_masks(shots: list[Shot], photographs: list[_Photograph]) -> None:
    """All images have a mask or none: half a set of masks is no set of masks."""
    has_mask = [photograph.pixels.shape[2] == 4 for photograph in photographs]
    if not any(has_mask) or all(has_mask):
        return
    has, lacks = shots[has_mask.index(True)], shots[has_mask.index(False)].image
    if has.mask is not None:
        raise ConfigError(f"{lacks} has no mask, but {has.image} has one; give all images a mask or none")
    remedy = "give all images an alpha channel or none"
    raise ConfigError(f"{lacks} has no alpha channel, but {has.image} has one; {remedy}")


def _tell_unreached(cameras: Cameras, shots: list[Shot]) -> None:
    """A notice where the coefficients of a lens describe a part of its image only."""
    if cameras.distortion is None:
        return
    share = cameras.unreached()
    worst = int(share.argmax())
    if share[worst] > 0:
        notice(
            f"{shots[worst].where}: the lens model does not reach {share[worst]:.1%} of the image, whose rays are "
            f"wrong ({int((share > 0).sum())} such images); estimate fewer coefficients or undistort the images"
        )
