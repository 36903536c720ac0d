from pathlib import Path

import numpy as np
import pytest
import scipy.io

from datasets.dtu_reference import read_dtu_reference
from tests.dtu import BELOW, BOX, CELL, FAR, SCANNED, observed, write_scan
from utils.registry import ConfigError


def test_a_scan_is_read_as_it_was_written(tmp_path: Path):
    reference = read_dtu_reference(write_scan(tmp_path), 7)
    np.testing.assert_allclose(reference.points, np.concatenate([SCANNED, BELOW, FAR]), atol=1e-5)
    assert np.array_equal(reference.observed, observed().astype(bool))
    assert np.array_equal(reference.box, BOX) and reference.cell == CELL
    assert reference.plane.tolist() == [0, 0, 1, 2]


def error_of(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_dtu_reference(root, 7)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["Points/stl/stl007_total.ply", "ObsMask/ObsMask7_10.mat", "ObsMask/Plane7.mat"])
def test_a_missing_file_is_named(tmp_path: Path, name: str):
    (write_scan(tmp_path) / name).unlink()
    assert error_of(tmp_path).startswith(f"{tmp_path / name} does not exist; unpack Points.zip and SampleSet.zip")


def test_a_broken_file_is_named(tmp_path: Path):
    plane = write_scan(tmp_path) / "ObsMask/Plane7.mat"
    plane.write_text("no plane")
    assert "Plane7.mat cannot be read as a MATLAB file" in error_of(tmp_path)
    scipy.io.savemat(plane, {"Q": np.ones(4)})
    assert "Plane7.mat holds no P; expected P" in error_of(tmp_path)
