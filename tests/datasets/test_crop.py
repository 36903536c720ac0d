import numpy as np
import pytest

from datasets.crop import Crop


def mask_of(*blocks: tuple[slice, slice, int]) -> np.ndarray:
    """A mask of 30 rows and 40 columns with rectangles of grey."""
    mask = np.zeros((30, 40), dtype=np.uint8)
    for rows, columns, value in blocks:
        mask[rows, columns] = value
    return mask


def test_a_window_grows_on_both_sides_and_stays_within_the_image():
    assert Crop(0.5, (10, 8, 16, 4)).window(None, 40, 30) == (6, 7, 30, 13)
    assert Crop(1.0, (0, 20, 30, 10)).window(None, 40, 30) == (0, 15, 40, 30)
    assert Crop(0.0, (10, 8, 16, 4)).window(None, 40, 30) == (10, 8, 26, 12)


def test_a_mask_is_as_large_as_what_it_shows():
    mask = mask_of((slice(5, 9), slice(12, 30), 255))
    assert Crop(0.0).window(mask, 40, 30) == (12, 5, 30, 9)


def test_doubtful_pixels_count_where_there_are_no_others():
    faint, clear = (slice(2, 4), slice(3, 6), 60), (slice(5, 9), slice(12, 30), 110)
    assert Crop(0.0).window(mask_of(faint, clear), 40, 30) == (12, 5, 30, 9)
    assert Crop(0.0).window(mask_of(faint), 40, 30) == (3, 2, 6, 4)


@pytest.mark.parametrize("size", [(40, 30), (1, 1)])
def test_an_empty_mask_leaves_the_whole_image(size: tuple[int, int]):
    assert Crop(0.3).window(np.zeros(size[::-1], dtype=np.uint8), *size) == (0, 0, *size)
