"""Keys of every reader of photographs: their size, what masks are for, where pixels lie."""

from dataclasses import dataclass
from pathlib import Path

from utils.registry import ConfigError


@dataclass
class PhotographConfig:
    """Keys of every reader of photographs."""

    img_wh: list[int] | None = None
    """Width and height in pixels to shrink the images to; null keeps their size."""
    img_downscale: int | None = None
    """Divisor of width and height, the alternative to img_wh."""
    img_max_side: int | None = None
    """Longest side in pixels of any image, the other alternative: images with a longer one are shrunk to it."""
    apply_mask: bool = True
    """Whether targets show the object alone, where masks are known; else masks only serve the mask loss."""
    load_data_on_gpu: bool = True
    """Whether the images, as bytes, live on the device that trains; else in host memory, a batch at a time follows."""

    def __post_init__(self) -> None:
        sizes = [key for key in ("img_wh", "img_downscale", "img_max_side") if getattr(self, key) is not None]
        if len(sizes) > 1:
            raise ValueError(f"{sizes[0]} and {sizes[1]} both set the image size; set one of them to null")
        if self.img_wh is not None and (len(self.img_wh) != 2 or min(self.img_wh) < 1):
            raise ValueError(f"img_wh = {self.img_wh}; expected [width, height] in pixels")
        for key in ("img_downscale", "img_max_side"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key} = {value}; expected an integer of at least 1")

    def size_of(self, image: Path, width: int, height: int) -> tuple[int, int]:
        """Width and height at which an image of this size is used.

        Raises:
            ConfigError: it has no such size.
        """
        if self.img_downscale is not None:
            new_width, new_height = width // self.img_downscale, height // self.img_downscale
            if min(new_width, new_height) < 1:
                raise ConfigError(
                    f"dataset.img_downscale = {self.img_downscale} leaves nothing of {image}, "
                    f"which is {width}x{height}; use a smaller divisor"
                )
            return new_width, new_height
        if self.img_max_side is not None:
            factor = min(self.img_max_side / max(width, height), 1)
            return max(round(factor * width), 1), max(round(factor * height), 1)
        if self.img_wh is None:
            return width, height

        new_width, new_height = self.img_wh
        asked = f"dataset.img_wh = [{new_width}, {new_height}]"
        if new_width > width or new_height > height:
            raise ConfigError(
                f"{asked} asks for more pixels than {image} has; set dataset.img_wh=[{width},{height}] or smaller"
            )
        fitting = max(round(height / width * new_width), 1)
        # Either side may be the rounded one.
        if new_height != fitting and new_width != round(width / height * new_height):
            raise ConfigError(
                f"{asked} has another aspect than {image}, which is {width}x{height}; "
                f"set dataset.img_wh=[{new_width},{fitting}]"
            )
        return new_width, new_height
