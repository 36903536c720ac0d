from pathlib import Path

import pytest

from datasets.folders import check_level, check_root, has_images
from utils.registry import ConfigError


def is_set(folder: Path) -> bool:
    return (folder / "cameras").is_file()


def make_set(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "cameras").touch()
    return folder


def level_error(root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        check_level(root, is_set, "file 'cameras'")
    return str(caught.value)


def test_the_folder_of_a_set_is_in_order(tmp_path: Path):
    root = make_set(tmp_path / "fox")
    check_root(root, is_set)
    check_level(root, is_set, "file 'cameras'")


def test_only_sets_are_named_beside_a_missing_folder(tmp_path: Path):
    make_set(tmp_path / "fox")
    (tmp_path / "notes").mkdir()
    with pytest.raises(ConfigError) as caught:
        check_root(tmp_path / "focks", is_set)
    assert str(caught.value).endswith("does not exist (did you mean 'fox'?); scenes beside it: fox")


@pytest.mark.parametrize("given, meant", [(".", "fox"), (".", "a/fox"), ("fox/images", "fox"), ("fox/a/b", "fox")])
def test_one_level_too_high_or_low_names_the_right_folder(tmp_path: Path, given: str, meant: str):
    make_set(tmp_path / meant)
    (tmp_path / given).mkdir(parents=True, exist_ok=True)
    assert level_error(tmp_path / given) == (
        f"dataset.root_dir: {tmp_path / given} holds no file 'cameras', but {tmp_path / meant} does; "
        "set it to that folder"
    )


@pytest.mark.parametrize("place", [".", "images"])
def test_photographs_without_cameras_lead_to_the_script_that_finds_them(tmp_path: Path, place: str):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "IMG_1.JPG").touch()
    assert level_error(tmp_path) == (
        f"dataset.root_dir: {tmp_path} holds no file 'cameras'; "
        f"find the cameras of its images by: python scripts/imgs2poses.py {tmp_path}"
    )


def test_an_empty_folder_is_told(tmp_path: Path):
    assert level_error(tmp_path) == f"dataset.root_dir: {tmp_path} holds no file 'cameras'; check the path"


def test_images_are_known_by_their_ending(tmp_path: Path):
    assert not has_images(tmp_path / "nowhere") and not has_images(tmp_path)
    (tmp_path / "video.mp4").touch()
    assert not has_images(tmp_path)
    (tmp_path / "a.png").touch()
    assert has_images(tmp_path)
