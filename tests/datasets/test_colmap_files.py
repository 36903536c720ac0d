import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.colmap_files import has_model, read_model
from datasets.colmap_model import ColmapModel
from tests.datasets.captures import CORNERS, ColmapText, colmap_model, cube_capture, write_model
from utils.registry import ConfigError

CAPTURE = cube_capture()
FORMS = pytest.mark.parametrize("form", ["bin", "txt"])


def read(root: Path, form: str, change: Callable[[ColmapText], object] = lambda model: None) -> ColmapModel:
    """The cube's model, changed, written and read again."""
    model = colmap_model(CAPTURE)
    change(model)
    write_model(root, model, form)
    return read_model(root)


def error_of(root: Path, form: str, change: Callable[[ColmapText], object] = lambda model: None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(root, form, change)
    message = str(caught.value)
    assert "\n" not in message
    return message


@FORMS
def test_a_model_comes_back_as_written(tmp_path: Path, form: str):
    written, model = colmap_model(CAPTURE), read(tmp_path, form)
    assert has_model(tmp_path)
    assert [image.name for image in model.images] == [f"{name}.png" for name in CAPTURE.names]
    for view, (image, (_, quaternion, translation, camera, _, features)) in enumerate(
        zip(model.images, written.images, strict=True)
    ):
        np.testing.assert_array_equal(image.quaternion, quaternion)
        np.testing.assert_array_equal(image.translation, translation)
        np.testing.assert_array_equal(image.pixel, np.array(features)[:, :2])
        np.testing.assert_array_equal(image.point, [-1, *range(3, 80, 10)])
        np.testing.assert_allclose(image.pose(), CAPTURE.to_world(view)[:3], atol=1e-12)
        assert image.camera == camera and model.cameras[camera].parameters == written.cameras[view][4]
        assert (model.cameras[camera].width, model.cameras[camera].height) == CAPTURE.size[view]
    np.testing.assert_array_equal(model.points.number, range(3, 80, 10))
    np.testing.assert_array_equal(model.points.position, CORNERS)
    np.testing.assert_array_equal(model.points.color, [[row, 2 * row, 255] for row in range(8)])
    np.testing.assert_allclose(model.points.error, 0.1 * np.arange(8))


@FORMS
def test_images_are_sorted_by_name_and_points_by_number(tmp_path: Path, form: str):
    model = read(tmp_path, form, lambda model: (model.images.reverse(), model.points.reverse()))
    assert [image.name for image in model.images] == [f"{name}.png" for name in CAPTURE.names]
    np.testing.assert_array_equal(model.points.position, CORNERS)


@FORMS
def test_images_may_have_no_features_and_models_no_points(tmp_path: Path, form: str):
    def empty(model: ColmapText) -> None:
        model.points.clear()
        model.images[:] = [(*image[:5], []) for image in model.images]

    model = read(tmp_path, form, empty)
    assert len(model.images) == len(CAPTURE) and len(model.points) == 0
    assert model.images[0].pixel.shape == (0, 2)


@FORMS
def test_cameras_may_be_shared_and_names_hold_folders_and_blanks(tmp_path: Path, form: str):
    def share(model: ColmapText) -> None:
        del model.cameras[1:]
        model.images[:] = [(n, q, t, 5, f"left side/{name}", f) for n, q, t, _, name, f in model.images]

    model = read(tmp_path, form, share)
    assert len(model.cameras) == 1 and {image.camera for image in model.images} == {5}
    assert model.images[0].name == "left side/000.png"


def test_binary_files_win_over_text(tmp_path: Path):
    read(tmp_path, "txt", lambda model: model.images.pop())
    assert len(read(tmp_path, "bin").images) == len(CAPTURE)


def _with_camera(*values):
    return lambda model: model.cameras.__setitem__(0, (5, *values))


def _with_image(place: int, value):
    def change(model: ColmapText) -> None:
        image = list(model.images[2])
        image[place] = value
        model.images[2] = tuple(image)

    return change


@FORMS
@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda model: model.images.clear(), "/images.{form} holds no image; the reconstruction failed, run it again"),
        (
            _with_camera("PINHOLE", 48, 36, [float("nan"), 1.0, 1.0, 1.0]),
            "/cameras.{form}, camera 5: 48x36 pixels, fx fy cx cy = [nan, 1.0, 1.0, 1.0]; expected a size, positive "
            "focal lengths and finite numbers",
        ),
        (_with_camera("SIMPLE_PINHOLE", 48, 36, [0.0, 1.0, 1.0]), "camera 5: 48x36 pixels, f cx cy = [0.0, 1.0, 1.0]"),
        (_with_camera("SIMPLE_PINHOLE", 0, 36, [9.0, 1.0, 1.0]), "camera 5: 0x36 pixels"),
        (
            _with_image(1, np.array([1.0, np.nan, 0.0, 0.0])),
            "/images.{form}, 002.png: the pose holds NaN or infinity; register the image again or remove it",
        ),
        (_with_image(2, np.array([np.inf, 0.0, 0.0])), "002.png: the pose holds NaN or infinity"),
        (_with_image(1, np.zeros(4)), "/images.{form}, 002.png: the pose is singular, its quaternion is 0"),
        (_with_image(3, 77), "002.png: camera 77 is missing; the files are of different models"),
        (_with_image(5, [(1.0, 1.0, 4)]), "002.png: point 4 is missing; the files are of different models"),
        (
            lambda model: model.points.__setitem__(1, (13, np.array([0.0, np.nan, 0.0]), (0, 0, 0), 0.0)),
            "/points3D.{form}: a position holds NaN or infinity",
        ),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, form: str, change: Callable, expected: str):
    assert expected.format(form=form) in error_of(tmp_path, form, change)


@pytest.mark.parametrize("form, where", [("bin", "camera 5"), ("txt", "line 3")])
def test_an_unknown_camera_model_names_the_known_ones(tmp_path: Path, form: str, where: str):
    assert error_of(tmp_path, form, _with_camera("FOV", 48, 36, [50.0, 50.0, 24.0, 18.0, 0.9])) == (
        f"{tmp_path}/cameras.{form}, {where}: camera model FOV is not known; known: SIMPLE_PINHOLE, PINHOLE, "
        "SIMPLE_RADIAL, RADIAL, OPENCV, OPENCV_FISHEYE, FULL_OPENCV, SIMPLE_RADIAL_FISHEYE, RADIAL_FISHEYE; undistort "
        "the photographs with COLMAP (image_undistorter)"
    )


def test_a_number_that_stands_for_no_camera_model_is_told(tmp_path: Path):
    assert "camera 5: camera model number 99" in error_of(tmp_path, "bin", _with_camera("NEW", 48, 36, [1.0]))


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_binary_file_may_end_nowhere_but_at_its_end(tmp_path: Path, name: str):
    read(tmp_path, "bin")
    path = tmp_path / f"{name}.bin"
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ConfigError, match=rf"{name}.bin is damaged or no COLMAP file \(.*\); copy or export it"):
            read_model(tmp_path)


def test_a_binary_file_of_something_else_is_damaged(tmp_path: Path):
    read(tmp_path, "bin")
    (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 2**63) + b"\xff" * 1000)
    with pytest.raises(ConfigError, match="images.bin is damaged or no COLMAP file"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    "name, lines, expected",
    [
        ("cameras", "1 PINHOLE 48 36 50 50 24", "line 1: expected CAMERA_ID PINHOLE WIDTH HEIGHT fx fy cx cy ("),
        ("cameras", "1 PINHOLE 48 36 50 50 24 wide", "line 1: expected CAMERA_ID PINHOLE WIDTH HEIGHT fx fy cx cy ("),
        ("cameras", "1", "is damaged or no COLMAP file"),
        ("images", "# names\n1 1 0 0 0 0 0 0 5", "line 2: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and"),
        (
            "images",
            "1 1 0 0 0 0 0 0 5 a.png\n1 2",
            "line 1: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and",
        ),
        ("points3D", "1 0 0 0 255 255 255", "line 1: expected POINT3D_ID X Y Z R G B ERROR and the track"),
        ("points3D", "1 0 0 zero 255 255 255 0.5", "is damaged or no COLMAP file (could not convert"),
    ],
)
def test_a_broken_line_is_located(tmp_path: Path, name: str, lines: str, expected: str):
    read(tmp_path, "txt")
    (tmp_path / f"{name}.txt").write_text(lines)
    with pytest.raises(ConfigError) as caught:
        read_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/{name}.txt") and expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_a_model_says_what_is_there(tmp_path: Path):
    read(tmp_path, "bin")
    (tmp_path / "points3D.bin").unlink()
    with pytest.raises(ConfigError) as caught:
        read_model(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds cameras.bin, images.bin; expected cameras, images and points3D, all as .bin or all as .txt"
    )
