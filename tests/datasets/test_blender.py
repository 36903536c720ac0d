import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.blender import Blender
from datasets.synthetic import look_at_origin, spiral
from utils.registry import ConfigError

N_VIEWS, WIDTH, HEIGHT = 8, 12, 8


def write_scene(root: Path, n_channels: int = 4, ending: str = ".png", **shared: Any) -> list[np.ndarray]:
    """Eight tiny images with random pixels and their poses, as all three splits."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = [rng.integers(256, size=(HEIGHT, WIDTH, n_channels), dtype=np.uint8) for _ in range(N_VIEWS)]
    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(root / f"r_{index}{ending}")
    frames = [
        {"file_path": f"./r_{index}", "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]}
        for index, pose in enumerate(look_at_origin(4 * spiral(N_VIEWS, 0)))
    ]
    content = {"camera_angle_x": 0.7, "frames": frames, **shared}
    for split in ("train", "val", "test"):
        (root / f"transforms_{split}.json").write_text(json.dumps(content))
    return images


def edit(root: Path, change: Any) -> None:
    """Applies `change` to the content of transforms_train.json."""
    path = root / "transforms_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def read(root: Path, split: str = "train", **options: Any):
    return Blender(Blender.Config(scene="tiny", root_dir=str(root), **options)).views(split)


def error_of(root: Path, split: str = "train", **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(root, split, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_colours_and_alpha_come_back_as_written(tmp_path: Path):
    images = write_scene(tmp_path)
    views = read(tmp_path)
    assert views.names == [f"r_{i}" for i in range(N_VIEWS)]
    assert views.has_mask and views.apply_mask and views.is_real
    stored = torch.cat((views.color, views.alpha[:, None]), dim=1).view(N_VIEWS, HEIGHT, WIDTH, 4)
    np.testing.assert_array_equal(stored.numpy(), np.stack(images))


def test_images_without_alpha_have_no_masks(tmp_path: Path):
    images = write_scene(tmp_path, n_channels=3)
    views = read(tmp_path)
    assert not views.has_mask
    # The blue channel is a colour, not a mask.
    np.testing.assert_array_equal(views.color.view(N_VIEWS, HEIGHT, WIDTH, 3).numpy(), np.stack(images))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".jpeg"])
def test_endings_of_images_may_be_left_out(tmp_path: Path, ending: str):
    write_scene(tmp_path, n_channels=3, ending=ending)
    assert len(read(tmp_path)) == N_VIEWS


def test_endings_of_images_may_be_given(tmp_path: Path):
    write_scene(tmp_path, n_channels=3, ending=".jpg")
    edit(tmp_path, lambda content: [frame.update(file_path=frame["file_path"] + ".jpg") for frame in content["frames"]])
    assert len(read(tmp_path)) == N_VIEWS


def test_the_field_of_view_spans_the_width_and_the_axis_meets_the_middle(tmp_path: Path):
    write_scene(tmp_path)
    cameras = read(tmp_path).cameras
    expected = 0.5 * WIDTH / math.tan(0.35)
    torch.testing.assert_close(cameras.focal, torch.full((N_VIEWS, 2), expected))
    torch.testing.assert_close(cameras.center, torch.tensor([[6.0, 4.0]]).expand(N_VIEWS, 2))
    torch.testing.assert_close(cameras.pose, look_at_origin(4 * spiral(N_VIEWS, 0)))


def test_intrinsics_in_pixels_win_over_the_field_of_view(tmp_path: Path):
    write_scene(tmp_path, fl_x=20.0, fl_y=21.0, cx=5.5, cy=4.5, w=WIDTH, h=HEIGHT)
    cameras = read(tmp_path).cameras
    assert cameras.focal[0].tolist() == [20.0, 21.0] and cameras.center[0].tolist() == [5.5, 4.5]


def test_intrinsics_of_a_frame_win_over_shared_ones(tmp_path: Path):
    write_scene(tmp_path, fl_x=20.0, cx=5.0)
    edit(tmp_path, lambda content: content["frames"][3].update(fl_x=30.0, cx=7.0))
    edit(tmp_path, lambda content: content["frames"][4].update(camera_angle_x=2 * math.atan(0.5)))
    cameras = read(tmp_path).cameras
    assert cameras.focal[2].tolist() == [20.0, 20.0] and cameras.center[2].tolist() == [5.0, 4.0]
    assert cameras.focal[3].tolist() == [30.0, 30.0] and cameras.center[3].tolist() == [7.0, 4.0]
    torch.testing.assert_close(cameras.focal[4], torch.tensor([12.0, 12.0]))


def test_distortion_is_honoured(tmp_path: Path):
    write_scene(tmp_path, fl_x=20.0)
    assert read(tmp_path).cameras.distortion is None
    edit(tmp_path, lambda content: content["frames"][3].update(k1=0.05, p2=0.01))
    distortion = read(tmp_path).cameras.distortion
    torch.testing.assert_close(distortion[3], torch.tensor([0.05, 0, 0, 0.01, 0, 0, 0, 0]))
    assert not distortion[2].any()


def test_images_of_one_scene_may_differ_in_size(tmp_path: Path):
    write_scene(tmp_path)
    Image.fromarray(np.zeros((5, 10, 4), dtype=np.uint8)).save(tmp_path / "r_2.png")
    views = read(tmp_path)
    assert views.size(2) == (10, 5) and views.size(3) == (WIDTH, HEIGHT)
    torch.testing.assert_close(views.cameras.focal[2], views.cameras.focal[3] * 10 / 12)


@pytest.mark.parametrize("options", [{"img_downscale": 2}, {"img_wh": [6, 4]}])
def test_shrinking_keeps_what_a_pixel_sees(tmp_path: Path, options: dict):
    images = write_scene(tmp_path, n_channels=3, fl_x=20.0, fl_y=24.0, cx=5.0, cy=3.0)
    views = read(tmp_path, **options)
    assert views.size(0) == (6, 4)
    assert views.cameras.focal[0].tolist() == [10.0, 12.0] and views.cameras.center[0].tolist() == [2.5, 1.5]
    mean = images[0].reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(views.color[:24].view(4, 6, 3).numpy() - mean).max() <= 1


def test_splits_have_the_names_of_the_configuration(tmp_path: Path):
    write_scene(tmp_path)
    (tmp_path / "transforms_val.json").rename(tmp_path / "transforms_holdout.json")
    assert len(read(tmp_path, "val", val_split="holdout")) == N_VIEWS


def test_a_point_cloud_beside_the_images_becomes_the_surface(tmp_path: Path):
    write_scene(tmp_path)
    lines = ["ply", "format ascii 1.0", "element vertex 2", *(f"property float {axis}" for axis in "xyz"), "end_header"]
    (tmp_path / "points.ply").write_text("\n".join([*lines, "0 0 0", "0 0 2", ""]))
    surface = read(tmp_path, surface_file="points.ply").surface
    torch.testing.assert_close(surface.distance(torch.tensor([[0.0, 3.0, 2.0]])), torch.tensor([3.0]))
    assert surface.diameter == 2


def test_a_missing_folder_names_the_scenes_beside_it(tmp_path: Path):
    write_scene(tmp_path / "lego")
    write_scene(tmp_path / "ship")
    assert error_of(tmp_path / "leggo") == (
        f"dataset.root_dir: folder {tmp_path}/leggo does not exist (did you mean 'lego'?); scenes beside it: lego, ship"
    )


def test_a_missing_parent_folder_names_the_last_one_that_exists(tmp_path: Path):
    assert error_of(tmp_path / "nerf_synthetic" / "lego") == (
        f"dataset.root_dir: neither {tmp_path}/nerf_synthetic/lego nor its parent folder exists, "
        f"only {tmp_path}; unpack it there"
    )


def test_a_missing_split_names_those_there(tmp_path: Path):
    write_scene(tmp_path)
    (tmp_path / "transforms_val.json").unlink()
    assert error_of(tmp_path, "val") == (
        f"dataset.val_split: {tmp_path}/transforms_val.json does not exist; splits there: test, train"
    )


def test_broken_json_is_located(tmp_path: Path):
    write_scene(tmp_path)
    (tmp_path / "transforms_train.json").write_text('{"frames": [\n  {"file_path": }\n]}')
    assert error_of(tmp_path) == (f"{tmp_path}/transforms_train.json, line 2, column 17: broken JSON, Expecting value")


def _set(**values: Any):
    return lambda content: content["frames"][1].update(values)


def _matrix(row: int, column: int, value: float):
    def change(content: dict) -> None:
        content["frames"][1]["transform_matrix"][row][column] = value

    return change


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda content: content.pop("frames"), "train.json: key 'frames' is missing; expected a mapping"),
        (lambda content: content.update(frames=[]), "train.json: 'frames' holds no photographs; expected a list"),
        (lambda content: content["frames"][1].pop("file_path"), "train.json, frame 1: key 'file_path' is missing"),
        (lambda content: content["frames"][1].pop("transform_matrix"), "frame 1: key 'transform_matrix' is missing"),
        (
            lambda content: content.pop("camera_angle_x"),
            "frame 0 (./r_0): neither 'fl_x' nor 'camera_angle_x' is given",
        ),
        (
            _set(camera_angle_x="wide"),
            "frame 1 (./r_1): 'camera_angle_x' is 'wide'; expected a number between 0 and 3.14",
        ),
        (_set(fl_x=-3), "frame 1 (./r_1): 'fl_x' is -3; expected a number between 0 and inf"),
        (_set(k1="bent"), "frame 1 (./r_1): 'k1' is 'bent'; expected a finite number"),
        (_set(camera_model="FOV"), "frame 1 (./r_1): lens 'FOV' is unknown here; known camera models: SIMPLE_PINHOLE"),
        (_set(file_path="../r_1"), "frame 1 (../r_1): path '../r_1' leaves the data folder {root}; move the file"),
        (_set(file_path="r_99"), "image is missing; {root} holds none of r_99, r_99.png, r_99.jpg, r_99.jpeg"),
        (
            _set(w=10, h=8),
            "{root}/r_1.png is 12x8, but {root}/transforms_train.json, frame 1 (./r_1) says w, h = 10, 8",
        ),
        (_matrix(0, 3, math.nan), "frame 1 (./r_1): transform_matrix holds NaN or infinity"),
        (_matrix(2, 2, 9.0), "frame 1 (./r_1): transform_matrix is not rigid"),
        (_set(transform_matrix=[[1, 0], [0, 1]]), "transform_matrix has shape (2, 2); expected 4 rows of 4"),
        (_set(transform_matrix=[[1, 0], [0]]), "transform_matrix is no matrix of numbers; expected 4 rows of 4"),
    ],
)
def test_a_broken_frame_is_named(tmp_path: Path, change: Any, expected: str):
    write_scene(tmp_path)
    edit(tmp_path, change)
    assert expected.format(root=tmp_path) in error_of(tmp_path)


def test_a_mirrored_pose_is_not_rigid(tmp_path: Path):
    write_scene(tmp_path)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0])).tolist()
    edit(tmp_path, _set(transform_matrix=mirror))
    assert "determinant -1" in error_of(tmp_path)


def test_an_unreadable_image_is_named(tmp_path: Path):
    write_scene(tmp_path)
    (tmp_path / "r_5.png").write_bytes(b"")
    assert "r_5.png is not an image that can be read" in error_of(tmp_path)


def test_half_a_set_of_masks_is_an_error(tmp_path: Path):
    write_scene(tmp_path)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / "r_6.png")
    assert error_of(tmp_path) == (
        f"{tmp_path}/r_6.png has no alpha channel, but {tmp_path}/r_0.png has one; "
        "give all images an alpha channel or none"
    )


@pytest.mark.parametrize(
    "img_wh, expected",
    [
        ([24, 16], "asks for more pixels than {root}/r_0.png has; set dataset.img_wh=[12,8] or smaller"),
        ([6, 6], "has another aspect than {root}/r_0.png, which is 12x8; set dataset.img_wh=[6,4]"),
    ],
)
def test_an_image_size_that_does_not_fit_comes_with_one_that_does(tmp_path: Path, img_wh: list, expected: str):
    write_scene(tmp_path)
    message = error_of(tmp_path, img_wh=img_wh)
    assert message.startswith(f"dataset.img_wh = [{img_wh[0]}, {img_wh[1]}]")
    assert message.endswith(expected.format(root=tmp_path))


def test_a_divisor_that_leaves_nothing_is_an_error(tmp_path: Path):
    write_scene(tmp_path)
    assert "dataset.img_downscale = 9 leaves nothing of" in error_of(tmp_path, img_downscale=9)


def test_a_missing_surface_names_those_there(tmp_path: Path):
    write_scene(tmp_path)
    (tmp_path / "surface.ply").write_text("")
    assert error_of(tmp_path, surface_file="surfaces.ply") == (
        f"dataset.surface_file: {tmp_path}/surfaces.ply does not exist (did you mean 'surface.ply'?); "
        f"surfaces in {tmp_path}: surface.ply"
    )


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"img_wh": [6, 4], "img_downscale": 2}, "img_wh and img_downscale both set the image size"),
        ({"img_wh": [6]}, r"img_wh = \[6\]; expected \[width, height\] in pixels"),
        ({"img_downscale": 0}, "img_downscale = 0; expected an integer of at least 1"),
    ],
)
def test_options_that_contradict_are_refused(options: dict, expected: str):
    with pytest.raises(ValueError, match=expected):
        Blender.Config(scene="tiny", root_dir="nowhere", **options)
