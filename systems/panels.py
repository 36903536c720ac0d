"""Pictures of what was rendered, for people: rows of columns, and videos of them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
import torch
from imageio.v2 import get_writer
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from utils.types import Rendered, Target

Picture = UInt8[np.ndarray, "H W 3"]


def view_panel(rendered: Rendered, target: Target, width: int, height: int) -> UInt8[np.ndarray, "H W_total 3"]:
    """One row of pictures of a whole view, whose rays come row by row.

    Columns, left to right: the photograph if there is one, the render; with a learnt background this alone and the
    foreground alone on black; depth; normals where the field has them, else opacity.
    """
    shape = (height, width)
    pictures = [color_picture(target.color.view(*shape, 3))] if target.is_real else []
    pictures.append(color_picture(rendered.color.view(*shape, 3)))
    if rendered.background is not None:
        behind = rendered.background.color
        # What was composited is undone, because `color` is foreground + (1 - opacity) * background.
        foreground = rendered.color - (1 - rendered.opacity)[:, None] * behind
        pictures += [color_picture(behind.view(*shape, 3)), color_picture(foreground.view(*shape, 3))]

    opacity = rendered.opacity.view(shape)
    # Thin haze has any depth; a ray counts as a hit where most of its light is stopped.
    pictures.append(depth_picture(rendered.depth.view(shape), opacity > 0.5))
    if rendered.normal is None:
        pictures.append(opacity_picture(opacity))
    else:
        pictures.append(normal_picture(rendered.normal.view(*shape, 3), opacity))
    return panel(pictures)


def panel(columns: Sequence[Picture]) -> UInt8[np.ndarray, "H W_total 3"]:
    """Pictures of one height side by side."""
    return np.concatenate(columns, axis=1)


def color_picture(color: Float[Tensor, "H W 3"]) -> Picture:
    """Colours in [0, 1]; what lies outside is clipped, NaN is black."""
    return (color.detach().cpu().nan_to_num(nan=0.0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def opacity_picture(opacity: Float[Tensor, "H W"]) -> Picture:
    """[0, 1] from black to white."""
    return color_picture(opacity[..., None].expand(-1, -1, 3))


def depth_picture(depth: Float[Tensor, "H W"], is_hit: Bool[Tensor, "H W"]) -> Picture:
    """Depth from blue (nearest of this picture) to red (farthest), white where nothing is hit."""
    depth, is_hit = depth.detach().cpu().float(), (is_hit & depth.isfinite()).cpu()
    share = torch.zeros_like(depth)
    if is_hit.any():
        near, far = depth[is_hit].min(), depth[is_hit].max()
        # A wall at one depth is all nearest: its range of 0 must not divide.
        share = (depth - near) / (far - near).clamp(min=1e-12)
    gray = (share.nan_to_num(nan=0.0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    picture = cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return np.where(is_hit.numpy()[..., None], picture, np.uint8(255))


def normal_picture(normal: Float[Tensor, "H W 3"], opacity: Float[Tensor, "H W"]) -> Picture:
    """World normals, [-1, 1] of each axis as [0, 1] of red, green and blue, on white by opacity."""
    cover = opacity[..., None] * (normal.norm(dim=-1, keepdim=True) > 0)
    return color_picture(cover * (normal + 1) / 2 + 1 - cover)


def save_image(path: Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes an image, in the format that the suffix names; folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(path, image)


def write_video(frames: Sequence[Path], path: Path, fps: int = 30) -> Path:
    """Writes an H.264 video of image files, holding one at a time in memory.

    Frames keep their pixels: the video is as large as the largest of them, made even as the codec wants it, and
    smaller ones get a white border to the right and below.

    Returns:
        `path`.

    Raises:
        ValueError: there is no frame.
    """
    if not frames:
        raise ValueError(f"{path}: a video needs at least one frame")
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = [imageio.improps(frame).shape[:2] for frame in frames]
    height, width = (max(sides) + max(sides) % 2 for sides in zip(*shapes, strict=True))
    # A macro block of 1 keeps imageio from resizing to multiples of 16.
    writer = get_writer(path, format="FFMPEG", fps=fps, macro_block_size=1, quality=8)  # type: ignore[arg-type]
    with writer:
        for frame, (rows, columns) in zip(frames, shapes, strict=True):
            border = ((0, height - rows), (0, width - columns), (0, 0))
            writer.append_data(np.pad(imageio.imread(frame), border, constant_values=255))
    return path
