from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.dtu import Dtu
from datasets.region import region_of_interest
from datasets.views import Views
from tests.datasets.captures import CENTER, cube_capture, neus_matrices, write_images, write_neus
from utils.registry import ConfigError

CAPTURE = cube_capture()


def read(root: Path, split: str = "train", **options) -> Views:
    return Dtu(Dtu.Config(root_dir=str(root), **options)).views(split)


def error_of(root: Path, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        read(root, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_matrices(root: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    matrices = neus_matrices(CAPTURE)
    change(matrices)
    np.savez(root / "cameras_sphere.npz", **matrices)


def rename(folder: Path, naming: Callable[[int], str]) -> None:
    """New names, which must not be old ones of files that are still to be renamed."""
    for path in sorted(folder.iterdir(), reverse=True):
        path.rename(path.with_name(naming(int(path.stem)) + path.suffix))


def test_the_unit_ball_is_the_scene_and_the_world_the_data_set(tmp_path: Path):
    views = read(write_neus(tmp_path, CAPTURE))
    np.testing.assert_allclose(views.to_dataset, neus_matrices(CAPTURE)["scale_mat_0"])
    for view in range(len(CAPTURE)):
        position = CAPTURE.to_world(view)[:3, 3]
        np.testing.assert_allclose(views.cameras.pose[view, :, 3], (position - CENTER) / 1.6, atol=1e-6)
        np.testing.assert_allclose(views.cameras.pose[view, :, :3], CAPTURE.to_world(view)[:3, :3], atol=1e-6)
        np.testing.assert_allclose(views.cameras.focal[view], np.diag(CAPTURE.intrinsics[view])[:2], rtol=1e-6)
        np.testing.assert_allclose(views.cameras.center[view], CAPTURE.intrinsics[view][:2, 2], rtol=1e-6)
    assert views.has_mask and views.apply_mask and views.points is None


def test_the_unit_ball_of_the_data_set_is_the_region_of_interest(tmp_path: Path):
    """Masks of photographs from one side alone leave the depth of the object open."""
    views = read(write_neus(tmp_path, CAPTURE))
    assert views.has_mask
    center, radius = region_of_interest(views)
    assert not center.any() and radius == 1


def test_a_turned_scale_matrix_turns_the_scene(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    turn = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    change_matrices(tmp_path, lambda m: m.update({k: v @ turn for k, v in m.items() if k.startswith("scale")}))
    views = read(tmp_path)
    in_world = views.to_dataset[:3, :3].numpy() @ views.cameras.pose[2, :, :3].double().numpy() / 1.6
    np.testing.assert_allclose(in_world, CAPTURE.to_world(2)[:3, :3], atol=1e-6)


@pytest.mark.parametrize(
    "naming", [lambda i: f"{i:06d}", lambda i: f"{i + 1:03d}", lambda i: str(i + 5), lambda i: f"rect_{i:03d}_max"]
)
def test_images_are_numbered_somehow(tmp_path: Path, naming: Callable[[int], str]):
    write_neus(tmp_path, CAPTURE)
    rename(tmp_path / "image", naming)
    views = read(tmp_path)
    expected = np.concatenate([pixels.reshape(-1, 4) for pixels in CAPTURE.photographs])
    np.testing.assert_array_equal(views.color.numpy(), expected[:, :3])
    np.testing.assert_array_equal(views.alpha.numpy(), expected[:, 3])


def test_numbers_are_counted_not_spelt(tmp_path: Path):
    capture = cube_capture(((24, 18),) * 11)
    write_neus(tmp_path, capture)
    rename(tmp_path / "image", str)
    rename(tmp_path / "mask", str)
    views = read(tmp_path)
    assert views.names == [str(i) for i in range(11)]
    np.testing.assert_allclose(views.cameras.focal[:, 0], 55 + np.arange(11), rtol=1e-6)


def test_photographs_may_be_jpegs_without_masks(tmp_path: Path):
    views = read(write_neus(tmp_path, CAPTURE, with_masks=False, ending=".jpg"))
    assert len(views) == 6 and not views.has_mask


def test_masks_may_be_known_and_not_applied(tmp_path: Path):
    views = read(write_neus(tmp_path, CAPTURE), apply_mask=False)
    assert views.has_mask and not views.apply_mask


def test_the_cameras_of_idr_are_found(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    (tmp_path / "cameras_sphere.npz").rename(tmp_path / "cameras.npz")
    assert len(read(tmp_path)) == len(read(tmp_path, cameras_file="cameras.npz")) == 6


def test_shrinking_scales_the_cameras(tmp_path: Path):
    views = read(write_neus(tmp_path, CAPTURE), img_downscale=2)
    assert views.size(0) == (24, 18)
    np.testing.assert_allclose(views.cameras.focal[0], [55 / 2, 57 / 2], rtol=1e-6)


def test_held_out_photographs_are_tested_and_a_path_is_filmed(tmp_path: Path):
    reader = Dtu(Dtu.Config(root_dir=str(write_neus(tmp_path, CAPTURE)), eval_every=3, n_test_traj_steps=5))
    assert reader.views("test").names == ["000", "003"] and reader.views("test").is_real
    path = reader.path()
    assert path is not None and len(path) == 5 and not path.is_real


def test_without_held_out_photographs_the_test_is_a_path(tmp_path: Path):
    reader = Dtu(Dtu.Config(root_dir=str(write_neus(tmp_path, CAPTURE)), n_test_traj_steps=5))
    assert len(reader.views("val")) == 6 and len(reader.views("test")) == 5 and reader.path() is None


def test_other_matrices_in_the_file_do_not_matter(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    change_matrices(tmp_path, lambda m: m.update(world_mat_inv_0=np.zeros((2, 2)), camera_mat_9=np.eye(4)))
    assert len(read(tmp_path)) == 6


def test_skew_is_told(tmp_path: Path, caplog):
    write_neus(tmp_path, CAPTURE)
    skewed = cube_capture()
    skewed.intrinsics[2, 0, 1] = -0.25
    np.savez(tmp_path / "cameras_sphere.npz", **neus_matrices(skewed))
    read(tmp_path)
    assert "cameras_sphere.npz: pixels are skewed by up to 0.25 px, which is ignored" in caplog.text


def test_no_skew_is_not_told(tmp_path: Path, caplog):
    read(write_neus(tmp_path, CAPTURE))
    assert "skewed" not in caplog.text and "principal point" not in caplog.text


def test_photographs_that_were_resized_without_their_cameras_are_told(tmp_path: Path, caplog):
    write_neus(tmp_path, CAPTURE, with_masks=False)
    for path in (tmp_path / "image").iterdir():
        image = Image.open(path)
        image.resize((image.width // 2, image.height // 2)).save(path)
    read(tmp_path)
    assert (
        f"world_mat_0: the principal point (25, 17) is far from the middle of {tmp_path}/image/000.png" in caplog.text
    )


@pytest.mark.parametrize("folder", ["image", "mask"])
def test_every_camera_has_an_image_and_a_mask(tmp_path: Path, folder: str):
    write_neus(tmp_path, CAPTURE)
    (tmp_path / folder / "003.png").unlink()
    assert error_of(tmp_path) == (
        f"{tmp_path}/{folder} holds 5 images, but {tmp_path}/cameras_sphere.npz 6 cameras (only one of both has 3); "
        "expected one image per camera"
    )


def test_as_many_images_may_still_be_the_wrong_ones(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    (tmp_path / "image/003.png").rename(tmp_path / "image/009.png")
    assert "holds 6 images, but" in error_of(tmp_path) and "(only one of both has 3, 9)" in error_of(tmp_path)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda m: m.clear(), "holds no world_mat_0, world_mat_1, ...; set dataset.cameras_file to a file that does"),
        (lambda m: m["world_mat_2"].fill(np.nan), "world_mat_2 holds NaN or infinity; expected 4 rows of 4 finite"),
        (
            lambda m: m.update(world_mat_2=np.eye(3)),
            "world_mat_2 has shape (3, 3); expected 4 rows of 4 finite numbers",
        ),
        (lambda m: m["world_mat_2"].__setitem__(1, 0), "world_mat_2: the matrix is singular, so no camera"),
        (lambda m: m.pop("scale_mat_4"), "scale_mat_4 is missing, the unit ball around the object"),
        (
            lambda m: m.update(scale_mat_4=2 * np.eye(4)),
            "scale_mat_4 differs from scale_mat_0; expected the same ball for all photographs",
        ),
        (
            lambda m: m.update({f"scale_mat_{i}": np.diag([1.0, 2, 1, 1]) for i in range(6)}),
            "scale_mat_0 is no similarity; expected a rotation times one scale, and a translation",
        ),
        (
            lambda m: m.update({f"scale_mat_{i}": np.zeros((4, 4)) for i in range(6)}),
            "scale_mat_0 is no similarity; expected a rotation times one scale, and a translation",
        ),
        (
            lambda m: m.update(world_mat_0=np.diag([100, 100, 1, 1]) @ m["world_mat_0"]),
            "world_mat_0: focal lengths 5500, 5700 px in an image 48 px wide",
        ),
    ],
)
def test_a_broken_matrix_is_named(tmp_path: Path, change: Callable, expected: str):
    write_neus(tmp_path, CAPTURE)
    change_matrices(tmp_path, change)
    message = error_of(tmp_path)
    assert message.startswith(f"{tmp_path}/cameras_sphere.npz") and expected in message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes):
    write_neus(tmp_path, CAPTURE)
    (tmp_path / "cameras_sphere.npz").write_bytes(content)
    assert error_of(tmp_path).startswith(f"{tmp_path}/cameras_sphere.npz is no .npz file of matrices (")


def test_a_missing_file_names_those_there(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    assert error_of(tmp_path, cameras_file="cameras_large.npz") == (
        f"{tmp_path}/cameras_large.npz does not exist; set dataset.cameras_file to one of cameras_sphere.npz"
    )


def test_a_mask_of_another_size_is_named(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    Image.fromarray(np.zeros((9, 12), dtype=np.uint8)).save(tmp_path / "mask/003.png")
    assert f"mask {tmp_path}/mask/003.png is 12x9, but {tmp_path}/image/003.png is 48x36" in error_of(tmp_path)


def test_an_unreadable_photograph_is_named(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    (tmp_path / "image/004.png").write_bytes(b"")
    assert f"{tmp_path}/image/004.png is not an image that can be read" in error_of(tmp_path)


def test_a_folder_below_or_above_names_the_right_one(tmp_path: Path):
    scene = write_neus(tmp_path / "scan24", CAPTURE)
    for wrong in (tmp_path, scene / "image"):
        assert f"but {scene} does; set it to that folder" in error_of(wrong)
    assert "(did you mean 'scan24'?)" in error_of(tmp_path / "scan25")


def test_photographs_alone_lead_to_the_script_that_finds_cameras(tmp_path: Path):
    write_images(tmp_path / "phone/images", CAPTURE)
    assert f"python scripts/imgs2poses.py {tmp_path}/phone" in error_of(tmp_path / "phone")


def test_reading_twice_gives_the_same(tmp_path: Path):
    write_neus(tmp_path, CAPTURE)
    assert torch.equal(read(tmp_path).cameras.pose, read(tmp_path).cameras.pose)
