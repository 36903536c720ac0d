from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.cameras import Cameras
from datasets.depth_maps import along_rays, read_half_floats
from datasets.views import Views, pixel_offsets
from utils.registry import ConfigError


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_half_floats_are_read_from_their_bits(tmp_path: Path):
    written = np.array([[0.5, 1.25, 3.0], [0, np.nan, np.inf]], dtype=np.float16)
    depth = read_half_floats(save(tmp_path / "d.png", written.view(np.uint16)), 2.0)
    np.testing.assert_array_equal(depth, np.array([[1, 2.5, 6], [0, 0, 0]], dtype=np.float32))


def test_depths_that_are_not_to_be_believed_are_unknown(tmp_path: Path):
    depth = save(tmp_path / "d.png", np.full((2, 2), 1.5, dtype=np.float16).view(np.uint16))
    mask = save(tmp_path / "m.png", np.array([[True, False], [False, True]]))
    np.testing.assert_array_equal(read_half_floats(depth, 1.0, mask), [[1.5, 0], [0, 1.5]])


def test_other_images_are_refused(tmp_path: Path):
    byte, color = np.zeros((2, 2), dtype=np.uint8), np.zeros((2, 2, 3), dtype=np.uint8)
    right = save(tmp_path / "right.png", np.ones((2, 3), dtype=np.uint16))
    (tmp_path / "broken.png").write_bytes(b"png")
    for path, mask, expected in (
        (save(tmp_path / "byte.png", byte), None, "byte.png has 8 bits a pixel"),
        (save(tmp_path / "color.png", color), None, "color.png has 3 channels"),
        (tmp_path / "broken.png", None, "broken.png cannot be read as an image"),
        (right, tmp_path / "nothing.png", "nothing.png does not exist"),
        (right, tmp_path / "byte.png", "byte.png has another size than"),
    ):
        with pytest.raises(ConfigError, match=expected):
            read_half_floats(path, 1.0, mask)


@pytest.mark.parametrize("apply_mask", [True, False])
def test_a_wall_is_farther_along_rays_that_meet_it_at_an_angle(apply_mask: bool):
    size = torch.tensor([[4, 2], [4, 2]])
    cameras = Cameras(torch.eye(3, 4).repeat(2, 1, 1), torch.full((2, 2), 2.0), size / 2, size)
    alpha = torch.tensor([255] * 7 + [0] + [255] * 8, dtype=torch.uint8)
    views = Views(cameras, ["a", "b"], pixel_offsets(size), None, alpha, apply_mask=apply_mask)
    wall = np.full((2, 4), 3.0, dtype=np.float32)
    wall[0, 0] = 0
    depth = along_rays(views, [wall, None])
    # Pixel (1, 0) has its centre at (-0.5, -0.5) pixels, a quarter of a focal length, from the axis.
    assert depth[1].item() == pytest.approx(3 * (1 + 2 * 0.25**2) ** 0.5)
    assert depth[0] == 0 and not depth[8:].any()
    assert (depth[7] == 0) == apply_mask
    points = views.image(0, torch.zeros(3)).rays.directions[1:7] * depth[1:7, None]
    torch.testing.assert_close(points[:, 2], torch.full((6,), -3.0))
    assert replace(views, depth=depth).draw(
        torch.tensor([0]), torch.tensor([[1, 0]]), torch.zeros(1, 3)
    ).target.depth.item() == pytest.approx(depth[1].item())
