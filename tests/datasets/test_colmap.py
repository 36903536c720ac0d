from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.colmap import Colmap
from datasets.views import Views
from tests.datasets.captures import (
    CORNERS,
    ColmapText,
    colmap_model,
    cube_capture,
    write_colmap,
    write_images,
    write_masks,
    write_model,
)
from utils.registry import ConfigError

CAPTURE = cube_capture()
ALIKE = cube_capture(((48, 36),) * 4)


def read(root: Path, split: str = "train", **options) -> Views:
    return Colmap(Colmap.Config(root_dir=str(root), **options)).views(split)


def error_of(root: Path, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        read(root, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_changed(root: Path, change: Callable[[ColmapText], object]) -> None:
    write_images(root / "images", CAPTURE)
    model = colmap_model(CAPTURE)
    change(model)
    write_model(root / "sparse/0", model, "bin")


def resize(capture, divisor: int, folder: Path, ending: str = ".png") -> None:
    """The photographs, shrunk as people do, rounding sizes."""
    folder.mkdir(parents=True)
    for name, pixels in zip(capture.names, capture.photographs, strict=True):
        image = Image.fromarray(pixels[:, :, :3])
        size = round(image.width / divisor), round(image.height / divisor)
        image.resize(size, Image.Resampling.BOX).save(folder / f"{name}{ending}")


def in_dataset(views: Views, position: torch.Tensor) -> np.ndarray:
    return position.double().numpy() @ views.to_dataset[:3, :3].numpy().T + views.to_dataset[:3, 3].numpy()


@pytest.mark.parametrize("sparse", ["sparse/0", "sparse", "colmap/sparse/0", "sparse/12"])
def test_models_are_found_in_the_usual_places(tmp_path: Path, sparse: str):
    assert len(read(write_colmap(tmp_path, CAPTURE, sparse=sparse))) == len(CAPTURE)


@pytest.mark.parametrize("workspace", ["dense", "dense/0"])
def test_an_undistorted_model_comes_with_its_own_photographs(tmp_path: Path, workspace: str):
    write_colmap(tmp_path / workspace, ALIKE, sparse="sparse")
    # The original ones are of another size.
    resize(ALIKE, 3, tmp_path / "images")
    assert read(tmp_path).size(0) == (48, 36)


def test_the_model_with_most_images_is_taken(tmp_path: Path, caplog):
    write_changed(tmp_path, lambda model: model.images.__delitem__(slice(2, None)))
    write_model(tmp_path / "sparse/1", colmap_model(CAPTURE), "bin")
    assert len(read(tmp_path)) == len(CAPTURE)
    assert f"{tmp_path}/sparse holds several COLMAP models, 0 (2 images), 1 (6 images); 1 is used" in caplog.text


def test_photographs_that_were_not_registered_are_left_out(tmp_path: Path):
    write_changed(tmp_path, lambda model: model.images.pop(3))
    assert read(tmp_path).names == ["000", "001", "002", "004", "005"]


def test_every_eighth_photograph_by_name_is_held_out(tmp_path: Path):
    write_changed(tmp_path, lambda model: model.images.reverse())
    reader = Colmap(Colmap.Config(root_dir=str(tmp_path), eval_every=4))
    assert reader.views("train").names == ["001", "002", "003", "005"]
    assert reader.views("val").names == reader.views("test").names == ["000", "004"]
    path = reader.path()
    assert path is not None and not path.is_real and torch.equal(path.to_dataset, reader.views("train").to_dataset)


def test_without_held_out_photographs_the_test_is_a_path(tmp_path: Path):
    reader = Colmap(Colmap.Config(root_dir=str(write_colmap(tmp_path, CAPTURE)), n_test_traj_steps=7))
    assert len(reader.views("train")) == len(reader.views("val")) == 6
    assert len(reader.views("test")) == 7 and not reader.views("test").is_real and reader.path() is None


@pytest.mark.parametrize("options", [{}, {"eval_every": 2}, {"img_downscale": 3}, {"center_est_method": "none"}])
def test_points_are_observed_where_cameras_see_them(tmp_path: Path, options: dict):
    views = read(write_colmap(tmp_path, CAPTURE), **options)
    points = views.points
    np.testing.assert_allclose(in_dataset(views, points.position), CORNERS, atol=1e-5)
    assert points.color.tolist() == [[row, 2 * row, 255] for row in range(8)]
    np.testing.assert_allclose(points.error.numpy(), 0.1 * np.arange(8), atol=1e-6)
    # Every photograph of the split observes all corners.
    assert points.view.tolist() == [view for view in range(len(views)) for _ in range(8)]
    assert points.point.tolist() == list(range(8)) * len(views)
    pixel, _ = views.cameras.project(points.view, points.position[points.point])
    torch.testing.assert_close(points.pixel, pixel, atol=1e-3, rtol=0)


def test_a_model_may_have_no_points(tmp_path: Path):
    def empty(model: ColmapText) -> None:
        model.points.clear()
        model.images[:] = [(*image[:5], []) for image in model.images]

    write_changed(tmp_path, empty)
    assert read(tmp_path, up_est_method="camera").points is None


def test_distortion_is_obeyed(tmp_path: Path):
    def distort(model: ColmapText) -> None:
        model.cameras[:] = [(n, "OPENCV", w, h, [*p, 0.1, 0.02, 0.003, -0.004]) for n, _, w, h, p in model.cameras]

    write_changed(tmp_path, distort)
    cameras = read(tmp_path).cameras
    expected = torch.tensor([0.1, 0.02, 0.003, -0.004, 0, 0, 0, 0]).expand(6, 8)
    torch.testing.assert_close(cameras.distortion, expected)


def test_photographs_that_were_shrunk_beforehand_are_taken_where_they_fit(tmp_path: Path):
    write_colmap(tmp_path, ALIKE)
    resize(ALIKE, 2, tmp_path / "images_2", ".jpg")
    (tmp_path / "images/000.png").unlink()  # proves that these are not read
    views = read(tmp_path, img_downscale=2)
    assert views.size(0) == (24, 18)
    np.testing.assert_allclose(views.cameras.focal[1], [56 / 2, 58 / 2])


def test_rounded_sizes_scale_width_and_height_by_themselves(tmp_path: Path):
    capture = cube_capture(((49, 37),) * 3)
    write_colmap(tmp_path, capture)
    resize(capture, 4, tmp_path / "images_4")
    views = read(tmp_path, img_downscale=4)
    assert views.size(0) == (12, 9)
    np.testing.assert_allclose(views.cameras.focal[0], [55 * 12 / 49, 57 * 9 / 37], rtol=1e-6)


def test_shrinking_here_serves_where_no_photographs_were_shrunk_beforehand(tmp_path: Path):
    views = read(write_colmap(tmp_path, ALIKE), img_downscale=2)
    assert views.size(0) == (24, 18)
    np.testing.assert_allclose(views.cameras.focal[1], [56 / 2, 58 / 2])


def test_masks_at_the_full_size_keep_the_photographs_there(tmp_path: Path):
    write_colmap(tmp_path, ALIKE)
    write_masks(tmp_path / "masks", ALIKE)
    resize(ALIKE, 2, tmp_path / "images_2")
    (tmp_path / "images_2/000.png").unlink()
    views = read(tmp_path, img_downscale=2)
    assert views.size(0) == (24, 18) and views.has_mask


@pytest.mark.parametrize("naming", ["{0}.png", "{0}.png.png", "abc{0}.png"])
def test_masks_have_the_usual_names(tmp_path: Path, naming: str):
    write_images(tmp_path / "images", CAPTURE)
    model = colmap_model(CAPTURE)
    if naming.startswith("abc"):  # instant-nsr-pl drops three characters
        for path in (tmp_path / "images").iterdir():
            path.rename(path.with_name(f"abc{path.name}"))
        model.images[:] = [(n, q, t, c, f"abc{name}", f) for n, q, t, c, name, f in model.images]
        naming = "{0}.png"
    write_model(tmp_path / "sparse", model, "txt")
    write_masks(tmp_path / "masks", CAPTURE, [naming.format(name) for name in CAPTURE.names])
    views = read(tmp_path)
    expected = np.concatenate([pixels[:, :, 3].reshape(-1) for pixels in CAPTURE.photographs])
    np.testing.assert_array_equal(views.alpha.numpy(), expected)


def test_masks_of_jpegs_are_png_files(tmp_path: Path):
    write_images(tmp_path / "images", CAPTURE, ".jpg")
    write_model(tmp_path / "sparse/0", colmap_model(CAPTURE, ".jpg"), "bin")
    write_masks(tmp_path / "masks", CAPTURE)
    assert read(tmp_path).has_mask


def test_names_may_hold_folders(tmp_path: Path):
    write_images(tmp_path / "images/left", CAPTURE)
    write_masks(tmp_path / "masks/left", CAPTURE)
    model = colmap_model(CAPTURE)
    model.images[:] = [(n, q, t, c, f"left/{name}", f) for n, q, t, c, name, f in model.images]
    write_model(tmp_path / "sparse/0", model, "bin")
    assert read(tmp_path).has_mask


def test_keys_of_published_configurations_are_known():
    for method in ("camera", "lookat", "point"):
        config = Colmap.Config(
            root_dir="load/garden",
            img_downscale=4,
            up_est_method="ground",
            center_est_method=method,
            n_test_traj_steps=120,
            apply_mask=False,
            load_data_on_gpu=False,
            train_split="train",
            val_split="train",
            test_split="test",
        )
        assert config.img_wh is None


def test_a_partial_set_of_masks_lists_the_missing(tmp_path: Path):
    write_colmap(tmp_path, CAPTURE)
    write_masks(tmp_path / "masks", CAPTURE, [f"{name}.png.png" for name in CAPTURE.names])
    (tmp_path / "masks/001.png.png").unlink()
    (tmp_path / "masks/004.png.png").unlink()
    assert error_of(tmp_path) == (
        f"{tmp_path}/masks lacks the masks of 2 of 6 photographs: 001.png, 004.png; add them as 001.png.png, or rename "
        "the folder to go without masks"
    )


def test_a_mask_of_another_size_is_named(tmp_path: Path):
    write_colmap(tmp_path, CAPTURE)
    write_masks(tmp_path / "masks", CAPTURE)
    Image.fromarray(np.zeros((9, 12), dtype=np.uint8)).save(tmp_path / "masks/003.png")
    assert f"mask {tmp_path}/masks/003.png is 12x9, but {tmp_path}/images/003.png is 48x36" in error_of(tmp_path)


def test_missing_photographs_are_listed(tmp_path: Path):
    write_colmap(tmp_path, CAPTURE)
    (tmp_path / "images/001.png").unlink()
    (tmp_path / "images/004.png").unlink()
    assert error_of(tmp_path) == (
        f"{tmp_path}/images lacks 2 of the 6 photographs of the COLMAP model: 001.png, 004.png; copy them there under "
        "these names"
    )


def test_long_lists_of_missing_photographs_are_cut(tmp_path: Path):
    write_colmap(tmp_path, CAPTURE)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    assert "000.png, 001.png, 002.png, 003.png, 004.png, ...; copy" in error_of(tmp_path)


def test_an_unreadable_photograph_is_named(tmp_path: Path):
    write_colmap(tmp_path, CAPTURE)
    (tmp_path / "images/004.png").write_bytes(b"")
    assert f"{tmp_path}/images/004.png is not an image that can be read" in error_of(tmp_path)


def test_a_photograph_of_another_shape_is_no_match(tmp_path: Path):
    write_colmap(tmp_path, CAPTURE)
    Image.fromarray(np.zeros((40, 48, 3), dtype=np.uint8)).save(tmp_path / "images/003.png")
    assert error_of(tmp_path).startswith(
        f"{tmp_path}/sparse/0, 003.png: the photograph is 48x40, but its camera was estimated for 48x36"
    )


def test_photographs_shrunk_by_another_divisor_are_no_match(tmp_path: Path):
    write_colmap(tmp_path, ALIKE)
    resize(ALIKE, 3, tmp_path / "images_2")
    assert "the photograph is 16x12, but its camera was estimated for 48x36 shrunk by 2" in error_of(
        tmp_path, img_downscale=2
    )


@pytest.mark.parametrize("name", ["../000.png", "/etc/000.png"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str):
    def rename(model: ColmapText) -> None:
        image = model.images[0]
        model.images[0] = (*image[:4], name, image[5])

    write_changed(tmp_path, rename)
    assert f"path '{name}' leaves the data folder {tmp_path}/images" in error_of(tmp_path)


def test_an_absurd_focal_length_is_named(tmp_path: Path):
    write_changed(tmp_path, lambda model: model.cameras.__setitem__(1, (6, "SIMPLE_PINHOLE", 48, 36, [9e3, 24, 18])))
    assert f"{tmp_path}/sparse/0, 001.png: focal lengths 9000, 9000 px in an image 48 px wide" in error_of(tmp_path)


def test_a_folder_below_or_above_names_the_right_one(tmp_path: Path):
    scene = write_colmap(tmp_path / "garden", CAPTURE)
    for wrong in (tmp_path, scene / "sparse", scene / "sparse/0", scene / "images"):
        assert error_of(wrong) == (
            f"dataset.root_dir: {wrong} holds no COLMAP model (sparse/0), but {scene} does; set it to that folder"
        )


def test_a_misspelt_folder_names_the_nearest(tmp_path: Path):
    write_colmap(tmp_path / "garden", CAPTURE)
    assert "does not exist (did you mean 'garden'?); scenes beside it: garden" in error_of(tmp_path / "gardn")


def test_photographs_alone_lead_to_the_script_that_finds_cameras(tmp_path: Path):
    write_images(tmp_path / "phone/images", CAPTURE)
    assert f"python scripts/imgs2poses.py {tmp_path}/phone" in error_of(tmp_path / "phone")


def test_a_missing_folder_of_photographs_names_those_that_were_shrunk(tmp_path: Path):
    write_colmap(tmp_path, ALIKE)
    (tmp_path / "images").rename(tmp_path / "images_8")
    assert error_of(tmp_path) == (
        f"{tmp_path}/images does not exist; it should hold the photographs of {tmp_path}/sparse/0; "
        "set dataset.img_downscale to that of images_8"
    )
