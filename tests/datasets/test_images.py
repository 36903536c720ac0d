import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.images import read_image, shrink
from utils.registry import ConfigError


def write_png_of_16_bits(path: Path, pixels: np.ndarray) -> None:
    """A PNG with 16 bits per channel, which Pillow cannot write: header, one compressed block, end."""
    height, width, n_channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[n_channels], 0, 0, 0)
    blocks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + blocks)


def test_colour_files_keep_their_bytes_and_only_alpha_becomes_a_mask(tmp_path: Path):
    rng = np.random.default_rng(0)
    for n_channels in (3, 4):
        pixels = rng.integers(256, size=(5, 7, n_channels), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        np.testing.assert_array_equal(read_image(tmp_path / "image.png"), pixels)


def test_grey_is_spread_over_three_channels(tmp_path: Path):
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))


def test_grey_with_alpha_keeps_its_alpha(tmp_path: Path):
    grey_alpha = np.arange(70, dtype=np.uint8).reshape(5, 7, 2)
    Image.fromarray(grey_alpha, "LA").save(tmp_path / "grey.png")
    read = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(read, grey_alpha[:, :, [0, 0, 0, 1]])


def test_palettes_are_looked_up(tmp_path: Path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "opaque.png")
    assert read_image(tmp_path / "opaque.png").tolist() == [[[10, 20, 30], [40, 50, 60]]]
    image.save(tmp_path / "transparent.png", transparency=1)
    assert read_image(tmp_path / "transparent.png").tolist() == [[[10, 20, 30, 255], [40, 50, 60, 0]]]


@pytest.mark.parametrize("n_channels", [1, 2, 3, 4])
def test_the_high_bytes_of_16_bit_images_are_read(tmp_path: Path, n_channels: int):
    wide = np.random.default_rng(0).integers(65536, size=(5, 7, n_channels))
    write_png_of_16_bits(tmp_path / "wide.png", wide)
    expected = (wide >> 8)[:, :, {1: [0, 0, 0], 2: [0, 0, 0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[n_channels]]
    np.testing.assert_array_equal(read_image(tmp_path / "wide.png"), expected)


def test_a_file_that_is_no_image_is_named(tmp_path: Path):
    (tmp_path / "note.png").write_text("not an image")
    with pytest.raises(ConfigError, match=r"^.*note\.png is not an image that can be read; expected PNG or JPEG$"):
        read_image(tmp_path / "note.png")


def test_a_truncated_image_is_named(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(256, size=(50, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"^.*half\.png cannot be read as an image: .+; replace the file$"):
        read_image(tmp_path / "half.png")


def test_shrinking_averages_areas_also_where_they_share_pixels():
    pixels = np.array([[[0] * 3, [90] * 3, [240] * 3]], dtype=np.uint8)
    # Three pixels become two: each takes one and a half.
    assert shrink(pixels, 2, 1)[0, :, 0].tolist() == [30, 190]


def test_shrinking_does_not_mix_the_colour_of_invisible_pixels():
    green, invisible_red = [0, 200, 0, 255], [255, 0, 0, 0]
    pixels = np.array([[green, invisible_red]], dtype=np.uint8)
    shrunk = shrink(pixels, 1, 1)[0, 0].astype(int)
    assert shrunk[3] in (127, 128)
    assert shrunk[0] == 0 and abs(shrunk[1] - 200) <= 1
