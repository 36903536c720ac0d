"""Laws of the way from photographs or a video to a project with cameras; only the last test needs pycolmap."""

import json
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageOps

from scripts import imgs2poses
from scripts.image_folder import MaskSource, extract_frames, sharpest, sharpness, store_photographs, turned
from scripts.structure_from_motion import pairs
from utils.registry import ConfigError

ORIENTATION, EXIF, FOCAL_LENGTH = 0x0112, 0x8769, 0x920A
RED, GREEN = (200, 30, 30), (30, 200, 30)


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A picture with detail everywhere."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photographs(folder: Path, *names: str) -> list[Path]:
    """Pictures of 12x8 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, name in enumerate(names):
        Image.fromarray(noise(12, 8, row)).save(folder / name)
    return [folder / name for name in names]


@pytest.fixture
def has_pycolmap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes before the reconstruction is tested without it."""
    monkeypatch.setattr(imgs2poses.importlib.util, "find_spec", lambda name: name)


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a call ends with."""
    assert imgs2poses.main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("turn", range(1, 9))
def test_photographs_are_stored_as_a_viewer_shows_them(turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    exif.get_ifd(EXIF)[FOCAL_LENGTH] = 4.25
    source = tmp_path / "a.png"
    Image.fromarray(noise(12, 8)).save(source, exif=exif)
    (stored,) = store_photographs([source], tmp_path / "out", MaskSource())
    with Image.open(source) as photograph, Image.open(tmp_path / "out/images/a.png") as image:
        shown = ImageOps.exif_transpose(photograph)
        assert np.array_equal(np.asarray(image), np.asarray(shown))
        assert image.getexif().get(ORIENTATION, 1) == 1
        # COLMAP begins with this focal length.
        assert image.getexif().get_ifd(EXIF)[FOCAL_LENGTH] == 4.25
        assert stored.camera == (*shown.size, "4.25")


def test_a_photograph_that_is_upright_already_is_copied_as_it_is(tmp_path: Path) -> None:
    (source,) = photographs(tmp_path, "a.jpg")
    store_photographs([source], tmp_path / "out", MaskSource())
    assert (tmp_path / "out/images/a.jpg").read_bytes() == source.read_bytes()
    assert not (tmp_path / "out/masks").exists()


def test_images_of_one_size_share_a_camera(tmp_path: Path) -> None:
    sources = photographs(tmp_path, "a.png", "b.png")
    Image.fromarray(noise(8, 12)).save(tmp_path / "c.png")
    a, b, c = store_photographs([*sources, tmp_path / "c.png"], tmp_path / "out", MaskSource())
    assert a.camera == b.camera != c.camera


def test_names_have_no_spaces_and_usual_endings(tmp_path: Path) -> None:
    sources = photographs(tmp_path, "my cat.JPG", "dog.webp")
    stored = store_photographs(sources, tmp_path / "out", MaskSource())
    assert [image.name for image in stored] == ["my_cat.JPG", "dog.png"]
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == ["dog.png", "my_cat.JPG"]


def test_photographs_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images of one name"):
        store_photographs(photographs(tmp_path, "a.png", "a.jpg"), tmp_path / "out", MaskSource())


def test_a_broken_photograph_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(ConfigError, match="a.jpg is not an image"):
        store_photographs([tmp_path / "a.jpg"], tmp_path / "out", MaskSource())


def test_transparency_becomes_masks(tmp_path: Path) -> None:
    alpha = np.zeros((8, 12, 1), dtype=np.uint8)
    alpha[2:5, 3:9] = 255
    pixels = np.concatenate((noise(12, 8), alpha), axis=2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    store_photographs([tmp_path / "a.png"], tmp_path / "out", MaskSource())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.png.png")), alpha[..., 0])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/images/a.png")), pixels[..., :3])


def test_transparency_that_hides_nothing_makes_no_masks(tmp_path: Path) -> None:
    Image.fromarray(noise(12, 8)).convert("RGBA").save(tmp_path / "a.png")
    store_photographs([tmp_path / "a.png"], tmp_path / "out", MaskSource())
    assert not (tmp_path / "out/masks").exists()


def test_transparency_of_some_photographs_only_is_an_error(tmp_path: Path) -> None:
    sources = photographs(tmp_path, "a.png", "b.png")
    Image.new("RGBA", (12, 8)).save(sources[0])
    with pytest.raises(ConfigError, match="1 of 2 photographs have no transparency, b.png"):
        store_photographs(sources, tmp_path / "out", MaskSource())


def test_background_is_what_differs_by_no_more_than_the_tolerance(tmp_path: Path) -> None:
    colors = np.array([[(250, 250, 250), (240, 250, 255), (239, 250, 250), (0, 250, 250)]], dtype=np.uint8)
    Image.fromarray(colors).save(tmp_path / "a.png")
    store_photographs([tmp_path / "a.png"], tmp_path / "out", MaskSource(background=(250, 250, 250), tolerance=10))
    assert np.asarray(Image.open(tmp_path / "out/masks/a.png.png")).tolist() == [[0, 0, 255, 255]]


def test_a_background_color_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (12, 8), RED).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="no background in any image"):
        store_photographs([tmp_path / "a.png"], tmp_path / "out", MaskSource(background=GREEN))


@pytest.mark.parametrize("is_turned", [False, True])
def test_masks_may_be_made_before_or_after_the_turn(is_turned: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(noise(12, 8)).save(tmp_path / "a.jpg", exif=exif)
    mask = noise(12, 8, seed=1)[..., 0]
    upright = turned(mask, 6)
    (tmp_path / "masks").mkdir()
    Image.fromarray(upright if is_turned else mask).save(tmp_path / "masks/a.png")
    store_photographs([tmp_path / "a.jpg"], tmp_path / "out", MaskSource(tmp_path / "masks"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.jpg.png")), upright)


def test_a_missing_mask_and_one_of_another_size_are_errors(tmp_path: Path) -> None:
    sources = photographs(tmp_path, "a.jpg")
    (tmp_path / "masks").mkdir()
    with pytest.raises(ConfigError, match="no mask of a.jpg; expected a.jpg.png or a.png"):
        store_photographs(sources, tmp_path / "one", MaskSource(tmp_path / "masks"))
    Image.new("L", (10, 8)).save(tmp_path / "masks/a.png")
    with pytest.raises(ConfigError, match="is 10x8, but a.jpg is 12x8"):
        store_photographs(sources, tmp_path / "two", MaskSource(tmp_path / "masks"))


def test_blur_takes_sharpness_away() -> None:
    sharp = noise(64, 48)
    blurred = [sharp, *(cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (0.5, 1, 2))]
    values = [sharpness(image) for image in blurred]
    assert values == sorted(values, reverse=True)


def test_every_span_of_a_video_gives_its_sharpest_frame() -> None:
    sharp = noise(64, 48)
    dull = cv2.GaussianBlur(sharp, (0, 0), 2)
    # Spans of 10 frames in 3 windows: 0-3, 4-6, 7-9; two frames more than expected belong to the last.
    frames = [sharp if row in (2, 4, 11) else dull for row in range(12)]
    assert [row for row, _ in sharpest(frames, 10, 3)] == [2, 4, 11]


def test_a_video_of_fewer_frames_than_wanted_gives_all() -> None:
    assert [row for row, _ in sharpest([noise(8, 8)] * 4, 4, 100)] == [0, 1, 2, 3]


def test_frames_of_a_video_file_are_written_with_their_numbers(tmp_path: Path) -> None:
    picture = cv2.resize(noise(32, 24), (128, 96), interpolation=cv2.INTER_CUBIC)
    dull = cv2.GaussianBlur(picture, (0, 0), 4)
    writer = imageio_ffmpeg.write_frames(tmp_path / "a.mp4", (128, 96), fps=10, quality=9)
    writer.send(None)
    for row in range(15):
        writer.send(np.ascontiguousarray(picture if row % 5 == 3 else dull))
    writer.close()
    paths = extract_frames(tmp_path / "a.mp4", tmp_path / "frames", 3)
    assert [path.name for path in paths] == ["frame_000003.jpg", "frame_000008.jpg", "frame_000013.jpg"]
    image = np.asarray(Image.open(paths[0])).astype(float)
    assert image.shape == (96, 128, 3)
    assert np.abs(image - picture).mean() < np.abs(image - dull).mean()


def test_a_file_that_is_no_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(ConfigError, match="a.mp4 cannot be read as a video"):
        extract_frames(tmp_path / "a.mp4", tmp_path / "frames", 3)


def test_exhaustive_matching_compares_every_two_images_once() -> None:
    chosen = pairs(7, "exhaustive")
    assert len(chosen) == len(set(chosen)) == 7 * 6 / 2


def test_a_sequence_compares_neighbours_and_closes_its_loop() -> None:
    chosen = set(pairs(101, "sequential"))
    assert {(5, 6), (5, 15), (0, 100)} <= chosen
    assert (5, 16) not in chosen
    # 10 followers each, less those that the last images lack, and the pairs of 0, 10, ... 100 not nearer than 20.
    assert len(chosen) == 101 * 10 - 55 + (11 * 10 // 2 - 10)


def test_without_pycolmap_the_command_that_installs_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(imgs2poses.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'pycolmap" in error_of(capsys, tmp_path)


@pytest.mark.usefixtures("has_pycolmap")
def test_mistakes_of_the_source_are_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "expected a folder of photographs or a video" in error_of(capsys, tmp_path / "nowhere")
    assert "holds no photographs; expected .jpg" in error_of(capsys, tmp_path)
    (tmp_path / "a.HEIC").touch()
    assert "but .heic: convert them to JPEG" in error_of(capsys, tmp_path)
    photographs(tmp_path, "a.jpg", "b.jpg")
    assert "holds 2 photographs; cameras need at least 3" in error_of(capsys, tmp_path)
    assert "expected a folder of photographs" in error_of(capsys, tmp_path / "a.jpg")
    photographs(tmp_path, "c.jpg")
    assert "--frames has no effect" in error_of(capsys, tmp_path, "--frames", 50)
    assert "--turntable needs masks" in error_of(capsys, tmp_path, "--turntable", "--output", tmp_path / "out")


@pytest.mark.usefixtures("has_pycolmap")
def test_mistakes_of_the_options_are_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--tolerance has no effect" in error_of(capsys, tmp_path, "--tolerance", 5)
    assert "cameras need at least 3 images" in error_of(capsys, tmp_path, "--frames", 2)
    assert "'OPENCVV'" in error_of(capsys, tmp_path, "--camera-model", "OPENCVV")
    assert "--background-color" in error_of(capsys, tmp_path, "--background-color", "255,255")
    assert "no such folder" in error_of(capsys, tmp_path, "--masks", tmp_path / "nowhere")
    assert "--help lists the options" in error_of(capsys, tmp_path, "--outptu", "x")
    (tmp_path / "a.mp4").touch()
    assert "--masks" in error_of(capsys, tmp_path / "a.mp4", "--masks", tmp_path)


@pytest.mark.usefixtures("has_pycolmap")
def test_what_this_program_did_not_write_is_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    photographs(tmp_path / "scene/images", "a.jpg", "b.jpg", "c.jpg")
    photographs(tmp_path / "other/images", "d.jpg")
    line = error_of(capsys, tmp_path / "scene", "--output", tmp_path / "other")
    assert "holds images of another origin; add --overwrite" in line
    line = error_of(capsys, tmp_path / "scene", "--output", tmp_path / "scene", "--overwrite")
    assert "would replace" in line
    assert (tmp_path / "scene/images/a.jpg").exists() and (tmp_path / "other/images/d.jpg").exists()


@pytest.mark.usefixtures("has_pycolmap")
def test_a_complete_result_is_not_made_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photographs(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    n_made = 0

    def make(sources: list[Path], folder: Path, arguments: object) -> dict[str, object]:
        nonlocal n_made
        n_made += 1
        (folder / "images").mkdir()
        figures = {"registered": 2, "images": 3, "missing": ["b.jpg"]}
        return {**figures, "cameras": {"OPENCV": 1}, "points": 1234, "reprojection_error": 0.44}

    monkeypatch.setattr(imgs2poses, "make", make)
    monkeypatch.chdir(tmp_path)
    for words in (["photos"], ["photos"]):
        assert imgs2poses.main(words) == 0
        *_, missing, command = capsys.readouterr().out.splitlines()
        assert missing == "no camera was found for b.jpg; they are not trained on"
        config = "configs/neus-colmap-fast.yaml"
        assert command == f"python launch.py --config {config} --train dataset.root_dir=photos-posed"
    assert n_made == 1

    assert "result of other settings; add --overwrite" in error_of(capsys, "photos", "--undistort")
    assert imgs2poses.main(["photos", "--undistort", "--overwrite"]) == 0
    assert n_made == 2


@pytest.mark.usefixtures("has_pycolmap")
def test_training_follows_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From photographs to the mesh by one command, which ends as the training does."""
    photographs(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    figures = {"registered": 3, "images": 3, "missing": [], "cameras": {"OPENCV": 1}, "points": 9}
    monkeypatch.setattr(imgs2poses, "make", lambda *_: figures | {"reprojection_error": 0.4})
    calls = []

    def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        calls.append((words[1:], cwd))
        return subprocess.CompletedProcess(words, 3)

    monkeypatch.setattr(imgs2poses.subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    assert imgs2poses.main(["photos"]) == 0 and not calls
    assert imgs2poses.main(["photos", "--train", "configs/nerf-colmap-fast.yaml"]) == 3
    ((words, folder),) = calls
    project = f"dataset.root_dir={(tmp_path / 'photos-posed').resolve()}"
    assert words == ["launch.py", "--config", "configs/nerf-colmap-fast.yaml", "--train", project]
    assert (folder / "launch.py").is_file()


@pytest.mark.usefixtures("has_pycolmap")
def test_what_a_failed_run_left_is_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    photographs(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")

    def fail(*_: object) -> None:
        raise ConfigError("nothing registers")

    monkeypatch.setattr(imgs2poses, "reconstruct", fail)
    for _ in range(2):
        assert error_of(capsys, tmp_path / "photos") == "error: nothing registers"
    assert len(list((tmp_path / "photos-posed/images").iterdir())) == 3


def test_photographs_are_taken_in_their_natural_order(tmp_path: Path) -> None:
    photographs(tmp_path / "images", "i10.jpg", "i9.jpg", "i1.jpg")
    found = imgs2poses.find_sources(imgs2poses.parse_arguments([str(tmp_path)]))
    assert [path.name for path in found] == ["i1.jpg", "i9.jpg", "i10.jpg"]


WIDTH, HEIGHT, FOCAL, RADIAL = 320, 240, 300.0, -0.12


def corner_of_a_room(center: np.ndarray, texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A photograph of three walls that meet at the origin, and the camera's rotation, world to OpenCV's camera.

    The lens has the focal length and the radial distortion above.
    """
    forward = (0.8 - center) / np.linalg.norm(0.8 - center)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rotation = np.stack((right, np.cross(forward, right), forward))
    matrix = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    pixels = np.mgrid[:WIDTH, :HEIGHT].T.reshape(-1, 1, 2) + 0.5
    plane = cv2.undistortPoints(pixels, matrix, np.array([RADIAL, 0, 0, 0]))[:, 0]
    directions = np.column_stack((plane, np.ones(len(plane)))) @ rotation
    distance = np.where(directions < 0, -center / np.minimum(directions, -1e-9), np.inf)
    wall, distance = distance.argmin(axis=1), distance.min(axis=1)
    points = center + directions * distance[:, None]
    place = np.stack([np.delete(point, axis) for point, axis in zip(points, wall, strict=True)]) * 128
    column, row = (place + np.stack((512 * wall, 0 * wall), axis=1)).T.reshape(2, HEIGHT, WIDTH).astype(np.float32)
    return cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), rotation


def read_poses(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rotations, world to camera, and centres from COLMAP's images.bin, by its documentation."""
    data, place, poses = path.read_bytes(), 8, {}
    for _ in range(struct.unpack_from("<Q", data)[0]):
        w, x, y, z, *shift = struct.unpack_from("<7d", data, place + 4)
        end = data.index(b"\0", place + 64)
        half = np.linalg.norm((x, y, z))
        axis = np.array((x, y, z)) / half
        rotation = cv2.Rodrigues(axis * 2 * np.arctan2(half, w))[0]
        poses[data[place + 64 : end].decode()] = (rotation, -rotation.T @ np.array(shift))
        place = end + 9 + 24 * struct.unpack_from("<Q", data, end + 1)[0]
    return poses


@pytest.mark.skipif(find_spec("pycolmap") is None, reason="pycolmap is not installed: pip install pycolmap")
def test_cameras_of_drawn_photographs_are_found(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    noises = [generator.random((1536 // step, 1536 // step)) for step in (4, 12, 48)]
    layers = [cv2.resize(one, (1536, 1536), interpolation=cv2.INTER_CUBIC) for one in noises]
    texture = (np.mean(layers, axis=0).clip(0, 1) * 255).astype(np.uint8)
    truth = {}
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for row, angle in enumerate(np.radians(np.linspace(15, 75, 10))):
        center = np.array((4 * np.cos(angle), 4 * np.sin(angle), 1.5 + 0.2 * (row % 3)))
        image, rotation = corner_of_a_room(center, texture)
        Image.fromarray(image).convert("RGB").save(tmp_path / f"photos/{row}.png")
        # A mask that shows in the image, so that it can be checked after undistortion.
        Image.fromarray((cv2.GaussianBlur(image, (0, 0), 8) > 127).astype(np.uint8) * 255).save(
            tmp_path / f"masks/{row}.png"
        )
        truth[f"{row}.png"] = (rotation, center)

    script = Path(imgs2poses.__file__)
    words = [tmp_path / "photos", "--masks", tmp_path / "masks", "--undistort", "--output", tmp_path / "out"]
    # In a process of its own, because pycolmap's libraries stay in the one they were loaded into.
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads((tmp_path / "out/imgs2poses.json").read_text())["result"]
    assert (result["registered"], result["missing"], result["cameras"]) == (10, [], {"PINHOLE": 1})

    poses = read_poses(tmp_path / "out/sparse/0/images.bin")
    assert poses.keys() == truth.keys()
    for name, other in (("0.png", "9.png"), ("2.png", "5.png")):
        found, true = (one[name][0] @ one[other][0].T for one in (poses, truth))
        assert np.degrees(np.arccos(np.clip((np.trace(found @ true.T) - 1) / 2, -1, 1))) < 0.3
    # Distances agree up to the scale that photographs do not tell.
    found, true = (
        np.array([np.linalg.norm(one[name][1] - one["0.png"][1]) for name in truth if name != "0.png"])
        for one in (poses, truth)
    )
    assert np.allclose(found / found.mean(), true / true.mean(), rtol=0.01)

    for name in truth:
        image = np.asarray(Image.open(tmp_path / f"out/images/{name}").convert("L"))
        mask = np.asarray(Image.open(tmp_path / f"out/masks/{name}.png"))
        assert np.mean((cv2.GaussianBlur(image, (0, 0), 8) > 127) == (mask > 127)) > 0.98
    assert not (tmp_path / "out/work").exists()
