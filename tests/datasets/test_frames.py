from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.frames import Frame, frames_of, inside, require_images, with_images
from utils.registry import ConfigError

POSE = torch.eye(4).tolist()


def frames(root: Path, *entries: dict[str, Any], **shared: Any) -> list[Frame]:
    listed = [{"file_path": f"{row}.png", "transform_matrix": POSE, **entry} for row, entry in enumerate(entries)]
    return frames_of({"fl_x": 100.0, **shared, "frames": listed}, root / "transforms.json")


def lens_error(root: Path, **shared: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        frames(root, {}, **shared)[0].lens(64, 48)
    return str(caught.value)


@pytest.mark.parametrize(
    "shared, expected",
    [
        ({}, [0, 0, 0, 0, 0, 0, 0, 0]),
        ({"k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4}, [0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0]),
        ({"camera_model": "OPENCV", "k1": 0.1, "k3": 0.5}, [0.1, 0, 0, 0, 0.5, 0, 0, 0]),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1}, [0.1, 0, 0, 0, 0, 0, 0, 0]),
        ({"camera_model": "PINHOLE", "k1": 0.0, "k4": 0}, [0, 0, 0, 0, 0, 0, 0, 0]),
        (
            {"camera_model": "FULL_OPENCV", **{f"k{n}": n / 10 for n in range(1, 7)}, "p1": 0.7, "p2": 0.8},
            [0.1, 0.2, 0.7, 0.8, 0.3, 0.4, 0.5, 0.6],
        ),
    ],
)
def test_perspective_lenses_have_their_coefficients_in_the_order_of_opencv(
    tmp_path: Path, shared: dict, expected: list[float]
):
    lens = frames(tmp_path, {}, **shared)[0].lens(64, 48)
    torch.testing.assert_close(lens.distortion, torch.tensor(expected, dtype=torch.float32))
    assert not lens.is_fisheye and lens.focal.tolist() == [100, 100] and lens.center.tolist() == [32, 24]


@pytest.mark.parametrize("kind", [{"camera_model": "OPENCV_FISHEYE"}, {"is_fisheye": True}])
def test_fisheyes_are_known_by_model_or_by_instant_ngps_flag(tmp_path: Path, kind: dict):
    lens = frames(tmp_path, {}, **kind, k1=0.1, k2=0.2, k3=0.3, k4=0.4, p1=0)[0].lens(64, 48)
    torch.testing.assert_close(lens.distortion, torch.tensor([0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0]))
    assert lens.is_fisheye


def test_each_frame_may_have_its_own_lens(tmp_path: Path):
    own, shared = frames(tmp_path, {"k1": 0.2, "camera_model": "OPENCV_FISHEYE"}, {}, k1=0.1)
    assert own.lens(64, 48).is_fisheye and not shared.lens(64, 48).is_fisheye
    assert own.lens(64, 48).distortion[0] == pytest.approx(0.2)
    assert shared.lens(64, 48).distortion[0] == pytest.approx(0.1)


def test_an_unknown_lens_names_the_known_ones(tmp_path: Path):
    message = lens_error(tmp_path, camera_model="EQUIRECTANGULAR")
    assert "frame 0 (0.png): lens 'EQUIRECTANGULAR' is unknown here; known camera models: SIMPLE_PINHOLE" in message
    assert "lens 'ftheta_p0' is unknown here" in lens_error(tmp_path, ftheta_p0=0.1)


@pytest.mark.parametrize(
    "model, key", [("PINHOLE", "k1"), ("OPENCV", "k4"), ("SIMPLE_RADIAL", "k5"), ("OPENCV_FISHEYE", "p2")]
)
def test_a_coefficient_that_the_model_does_not_have_is_an_error(tmp_path: Path, model: str, key: str):
    message = lens_error(tmp_path, camera_model=model, **{key: 0.1})
    assert f"'{key}' = 0.1, but {model} lenses have no such coefficient" in message


def test_masks_lie_where_the_frame_says(tmp_path: Path):
    with_mask, without = frames(tmp_path, {"mask_path": "masks/0.png"}, {})
    assert with_mask.file("mask_path") == tmp_path / "masks" / "0.png" and without.file("mask_path") is None


@pytest.mark.parametrize("name", ["../0.png", "images/../../0.png", "/etc/0.png"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ConfigError) as caught:
        frames(tmp_path, {"file_path": name})
    assert f"path '{name}' leaves the data folder {tmp_path}; move the file there" in str(caught.value)
    with pytest.raises(ConfigError, match="leaves the data folder"):
        frames(tmp_path, {"mask_path": name})[0].file("mask_path")


def test_a_path_may_wander_within_the_folder(tmp_path: Path):
    assert inside(tmp_path, "./a/../b.png", "here") == tmp_path / "a" / ".." / "b.png"
    assert inside(tmp_path, str(tmp_path / "b.png"), "here") == tmp_path / "b.png"


def test_missing_images_are_told_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "1.png").touch()
    found = with_images(frames(tmp_path, {}, {}, {}))
    assert [frame.image.name for frame in found] == ["1.png"]
    assert [record.message for record in caplog.records] == [
        f"2 of 3 images are missing and left out, first {tmp_path}/transforms.json, frame 0 (0.png)"
    ]


def test_a_set_without_any_image_is_an_error(tmp_path: Path):
    for check in (with_images, require_images):
        with pytest.raises(ConfigError, match=r"frame 0 \(0\.png\): image is missing; .* holds none of 0\.png, 0\.png"):
            check(frames(tmp_path, {}, {}))
