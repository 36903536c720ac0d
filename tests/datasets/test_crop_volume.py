import json
from pathlib import Path

import pytest
import torch

from datasets.crop_volume import CropVolume, read_crop_volume
from utils.registry import ConfigError

CONTENT = {
    "class_name": "SelectionPolygonVolume",
    "orthogonal_axis": "Y",
    "axis_min": -1.0,
    "axis_max": 2.0,
    # An L in x and z: a square of side 2 without its upper right quarter.
    "bounding_polygon": [[0, 0, 0], [2, 0, 0], [2, 0, 1], [1, 0, 1], [1, 0, 2], [0, 0, 2]],
}


def written(path: Path, **changes) -> Path:
    path.write_text(json.dumps({name: value for name, value in (CONTENT | changes).items() if value is not None}))
    return path


def test_a_prism_holds_what_is_inside_its_outline_and_its_range(tmp_path: Path):
    volume = read_crop_volume(written(tmp_path / "crop.json"))
    inside = torch.tensor([[0.5, 0.0, 0.5], [1.9, -1.0, 0.9], [0.1, 2.0, 1.9]])
    outside = torch.tensor([[1.5, 0.0, 1.5], [0.5, -1.1, 0.5], [0.5, 2.1, 0.5], [-0.1, 0, 0.5], [2.1, 0, 0.5]])
    assert volume.holds(inside).all() and not volume.holds(outside).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_names_the_coordinate_that_the_range_is_for(axis: int):
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]).double()
    point = torch.full((1, 3), 0.5)
    point[0, axis] = 7.0
    assert CropVolume(axis, 6.0, 8.0, square).holds(point).all()
    assert not CropVolume((axis + 1) % 3, 6.0, 8.0, square).holds(point).any()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"bounding_polygon": None}, "is no crop volume"),
        ({"orthogonal_axis": "W"}, "is no crop volume"),
        ({"bounding_polygon": [[0, 0, 0], [1, 0, 0]]}, "holds an empty volume"),
        ({"axis_min": 3.0}, "holds an empty volume"),
    ],
)
def test_a_broken_volume_is_told(tmp_path: Path, changes: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        read_crop_volume(written(tmp_path / "crop.json", **changes))
    with pytest.raises(ConfigError, match="does not exist"):
        read_crop_volume(tmp_path / "other.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ConfigError, match="is no crop volume"):
        read_crop_volume(tmp_path / "text.json")
