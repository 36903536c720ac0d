"""Image files as bytes in memory."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from utils.registry import ConfigError


def read_image(path: Path) -> UInt8[np.ndarray, "H W C"]:
    """The pixels of an image file as RGB, or as RGBA (straight alpha) if the file knows transparency.

    Palettes are looked up, grey is spread over three channels, and of 16-bit values the high byte is kept.
    No gamma is undone and no EXIF rotation applied: cameras are calibrated for the pixels as they are stored.

    Raises:
        ConfigError: the file is damaged, no image, or holds floating point values.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _bytes(image)
    except UnidentifiedImageError as error:
        raise ConfigError(f"{path} is not an image that can be read; expected PNG or JPEG") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as an image: {error}; replace the file") from error


def shrink(pixels: UInt8[np.ndarray, "H W C"], width: int, height: int) -> UInt8[np.ndarray, "h w C"]:
    """The image at a smaller size; a new pixel is the mean of the area it covers.

    Colours are averaged in proportion to their alpha, or the invisible colour of transparent pixels would bleed
    into the outline.
    """
    opacity = (pixels[:, :, 3:] if pixels.shape[2] == 4 else np.ones_like(pixels[:, :, :1])).astype(np.float32)
    weighted = np.concatenate((pixels[:, :, :3] * opacity, opacity), axis=2)
    means = cv2.resize(weighted, (width, height), interpolation=cv2.INTER_AREA)
    color = means[:, :, :3] / np.maximum(means[:, :, 3:], 1e-6)
    return np.concatenate((color, means[:, :, 3:]), axis=2)[:, :, : pixels.shape[2]].round().astype(np.uint8)


def _bytes(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    if image.mode == "F":
        raise ValueError("it holds floating point values, expected 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip instead of scale
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    return np.array(image.convert("RGBA" if has_alpha else "RGB"))
