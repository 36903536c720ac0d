"""NumPy files, read by threads side by side."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datasets.arrays import read_array
from utils.registry import ConfigError


def deeper(depth: int, path: Path) -> np.ndarray:
    return deeper(depth - 1, path) if depth else read_array(path)


def test_threads_may_read_at_once(tmp_path):
    path, values = tmp_path / "values.npy", np.arange(6.0).reshape(2, 3)
    np.save(path, values)
    # Whenever rubbish is collected, which a small threshold makes often, another thread has its turn.
    threshold, give_way = gc.get_threshold(), lambda *_: time.sleep(0)
    gc.set_threshold(5)
    gc.callbacks.append(give_way)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(deeper, 20 * list(range(10)), 200 * [path]))
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(give_way)
    assert all(np.array_equal(one, values) and one.dtype == np.float32 for one in found)


def test_what_is_no_array_is_named(tmp_path):
    path = tmp_path / "values.npy"
    path.write_text("no array")
    with pytest.raises(ConfigError, match=r"values\.npy cannot be read as an array of numbers: .*; replace the file"):
        read_array(path)
