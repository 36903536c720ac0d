"""The folders `images` and `masks` of a capture, written from photographs or from a video.

Whatever works on them later takes pixels as they are stored, so everything here is upright: the turn that EXIF asks a
viewer for is carried out and its tag dropped.
"""

import itertools
import logging
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from datasets.progress import with_progress
from utils.images import read_image
from utils.registry import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""Of photographs that can be read."""
ORIENTATION, EXIF, FOCAL_LENGTH = 0x0112, 0x8769, 0x920A
"""EXIF tags."""


@dataclass
class MaskSource:
    """What tells the object from its background; if nothing is set, the transparency of the photographs."""

    folder: Path | None = None
    """Holds grey images named as the photographs, 255 on the object."""
    background: tuple[int, int, int] | None = None
    """Everything of this colour is background."""
    tolerance: int = 10
    """Largest difference from it in any channel, of 255."""


@dataclass
class StoredImage:
    """One image of the folder."""

    name: str
    camera: tuple[Any, ...]
    """Equal for images that one camera took: they have the same size and, where EXIF tells it, focal length."""
    mask_darkest: int | None
    """Darkest value of the mask, None without one."""


def store_photographs(paths: list[Path], folder: Path, masks: MaskSource) -> list[StoredImage]:
    """Writes `images/` and, where there is something to make them of, `masks/` with a file NAME.png for every image.

    Raises:
        ConfigError: two photographs of one name, an unreadable one, or masks that are missing or do not fit.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    stems: dict[str, Path] = {}
    for path in paths:
        if (other := stems.setdefault(_name(path).stem, path)) is not path:
            raise ConfigError(f"{other} and {path.name} would become images of one name; rename one of them")
    with ThreadPoolExecutor() as pool:
        stored = pool.map(lambda path: store_photograph(path, folder, masks), paths)
        images = list(with_progress(stored, len(paths), "images"))
    without = [image.name for image in images if image.mask_darkest is None]
    if 0 < len(without) < len(images):
        raise ConfigError(
            f"{len(without)} of {len(images)} photographs have no transparency, {without[0]} is the first"
        )
    if without or all(image.mask_darkest == 255 for image in images):
        if masks.folder is not None or masks.background is not None:
            raise ConfigError("the masks show no background in any image: has it another colour, are masks inverted?")
        # Photographs without transparency, or saved with an alpha channel that they make no use of, tell nothing.
        shutil.rmtree(folder / "masks")
    return images


def store_photograph(path: Path, folder: Path, masks: MaskSource) -> StoredImage:
    """Writes one image and its mask. A file that needs no change is copied as it is.

    Raises:
        ConfigError: the photograph cannot be read, or its mask is missing or of another size.
    """
    pixels = read_image(path)
    with Image.open(path) as image:
        exif = image.getexif()
    turn = exif.pop(ORIENTATION, 1)
    upright = turned(pixels, turn)
    mask = make_mask(path, upright, turn, masks)
    name = _name(path)
    target = folder / "images" / name
    if turn == 1 and name.suffix == path.suffix and pixels.shape[2] == 3:
        shutil.copyfile(path, target)
    else:
        Image.fromarray(upright[..., :3]).save(target, quality=95, subsampling=0, exif=exif)
    if mask is not None:
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    camera = (upright.shape[1], upright.shape[0], str(exif.get_ifd(EXIF).get(FOCAL_LENGTH)))
    return StoredImage(str(name), camera, None if mask is None else int(mask.min()))


def turned(pixels: UInt8[np.ndarray, "H W *C"], turn: int) -> UInt8[np.ndarray, "H2 W2 *C"]:
    """The pixels as a viewer shows them.

    Args:
        pixels: as stored.
        turn: EXIF orientation, the side of the scene that the first row and the first column show; an unknown value
            leaves the pixels as they are.
    """
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if turn in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if turn in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def make_mask(
    path: Path, upright: UInt8[np.ndarray, "H W C"], turn: int, masks: MaskSource
) -> UInt8[np.ndarray, "H W"] | None:
    """The mask of an image: 255 on the object, None if nothing tells.

    Args:
        path: of the photograph.
        upright: its pixels, turned, with three or four channels.
        turn: the EXIF orientation that was carried out.
        masks: where masks come from.

    Raises:
        ConfigError: the mask is missing, unreadable or of another size.
    """
    if masks.background is not None:
        return 255 * is_object(upright[..., :3], masks.background, masks.tolerance).astype(np.uint8)
    if masks.folder is None:
        return upright[..., 3] if upright.shape[2] == 4 else None
    names = (path.name, f"{path.name}.png", f"{path.stem}.png", f"{path.stem}.jpg")
    found = next((masks.folder / name for name in names if (masks.folder / name).is_file()), None)
    if found is None:
        raise ConfigError(
            f"--masks {masks.folder}: no mask of {path.name}; expected {path.name}.png or {path.stem}.png"
        )
    mask = read_image(found)[..., 0]
    # Some tools make masks of the pixels as stored, others of what a viewer shows.
    if mask.shape != upright.shape[:2]:
        mask = turned(mask, turn)
    if mask.shape != upright.shape[:2]:
        sizes = f"{mask.shape[1]}x{mask.shape[0]}, but {path.name} is {upright.shape[1]}x{upright.shape[0]}"
        raise ConfigError(f"{found} is {sizes}; a mask must have the size of its photograph")
    return mask


def is_object(
    pixels: UInt8[np.ndarray, "H W 3"], background: tuple[int, int, int], tolerance: int
) -> Bool[np.ndarray, "H W"]:
    """Whether pixels differ from the background colour by more than `tolerance`, of 255, in any channel."""
    difference = np.abs(pixels.astype(np.int16) - np.array(background, dtype=np.int16))
    return difference.max(axis=-1) > tolerance


def extract_frames(video: Path, folder: Path, n_frames: int) -> list[Path]:
    """Writes the sharpest frame of each of `n_frames` equal spans of a video; names tell their place in it.

    Raises:
        ConfigError: the file is no video, or one of fewer than three frames.
    """
    folder.mkdir(parents=True)
    # It warns of every upright video, whose frames are turned before they come here.
    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)
    try:
        stream = imageio_ffmpeg.read_frames(video)
        facts: Any = next(stream)
        seconds = facts["duration"] or imageio_ffmpeg.count_frames_and_secs(video)[1]
    except (OSError, RuntimeError, StopIteration) as error:
        raise ConfigError(f"{video} cannot be read as a video; expected a format that ffmpeg knows") from error
    width, height = facts["size"]
    n_all = max(round(seconds * facts["fps"]), 1)
    frames = (np.frombuffer(frame, dtype=np.uint8).reshape(height, width, 3) for frame in stream)
    paths = []
    for row, frame in sharpest(with_progress(frames, n_all, "frames"), n_all, n_frames):
        paths.append(folder / f"frame_{row:06d}.jpg")
        Image.fromarray(frame).save(paths[-1], quality=95, subsampling=0)
    if len(paths) < 3:
        raise ConfigError(f"{video} has {len(paths)} frames; cameras need at least 3")
    return paths


def sharpest(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]], n_frames: int, n_windows: int
) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"]]]:
    """Number and pixels of the sharpest frame of every window; only two frames are held at a time.

    Args:
        frames: in order; more or fewer than expected may come.
        n_frames: how many are expected.
        n_windows: equal spans that these are divided into.
    """

    def window(item: tuple[int, Any]) -> int:
        return min(item[0] * n_windows // n_frames, n_windows - 1)

    for _, run in itertools.groupby(enumerate(frames), window):
        yield max(run, key=lambda item: sharpness(item[1]))


def sharpness(pixels: UInt8[np.ndarray, "H W 3"]) -> float:
    """Variance of the Laplacian of brightness, at 640 pixels of width at most: finer detail is mostly noise."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    factor = min(640 / grey.shape[1], 1)
    small = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(small, cv2.CV_32F).var())


def _name(path: Path) -> Path:
    """Of the image that a photograph becomes: fields of COLMAP's text files end at a space."""
    name = Path(path.name.replace(" ", "_"))
    return name if name.suffix.lower() in (".jpg", ".jpeg", ".png") else name.with_suffix(".png")
