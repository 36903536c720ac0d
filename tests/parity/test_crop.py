"""A photograph cut around its object against recorded numbers of the published code."""

from pathlib import Path

import numpy as np
import torch

from datasets.crop import Crop
from datasets.lenses import Lens
from datasets.pytorch3d import from_pytorch3d

DATA = Path(__file__).parent / "data" / "frame_crop_resize.npz"


def lens(data: dict[str, np.ndarray], prefix: str, width: int, height: int) -> Lens:
    """The recorded camera, in pixels."""
    keys = ("R", "T", "focal_length", "principal_point")
    parts = [torch.from_numpy(data[f"{prefix}_{key}"]) for key in keys]
    cameras = from_pytorch3d(parts[0], parts[1], parts[2], parts[3], torch.tensor([[width, height]]))
    return Lens(cameras.focal[0], cameras.center[0])


def test_crops_are_those_of_the_family() -> None:
    with np.load(DATA) as arrays:
        data = {key: arrays[key] for key in arrays.files}
    image = data["image_rgb"]  # [3, 30, 40]
    left, top, right, bottom = Crop(0.3, tuple(data["bbox"].tolist())).window(None, 40, 30)
    assert [left, top, right - left, bottom - top] == data["crop_bbox"].tolist()
    np.testing.assert_array_equal(image[:, top:bottom, left:right], data["cropped_rgb"])

    cropped = lens(data, "cam", 40, 30).cropped(left, top)
    expected = lens(data, "cropcam", right - left, bottom - top)
    torch.testing.assert_close(cropped.focal, expected.focal)
    torch.testing.assert_close(cropped.center, expected.center, rtol=0, atol=1e-5)


def test_lenses_shrink_as_in_the_family() -> None:
    """There a crop of 19 x 16 is pasted into an image of 20 x 24, so that its scale is 20 / 19 in both directions."""
    with np.load(DATA) as arrays:
        data = {key: arrays[key] for key in arrays.files}
    scaled = lens(data, "cropcam", 19, 16).scaled(20 / 19, 20 / 19)
    expected = lens(data, "resizecam", 20, 24)
    torch.testing.assert_close(scaled.focal, expected.focal)
    torch.testing.assert_close(scaled.center, expected.center, rtol=0, atol=1e-4)
