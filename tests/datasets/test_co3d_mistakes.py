"""What is said about sets in the layout of CO3D that are broken or meant otherwise."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from datasets.co3d import Co3d
from tests.datasets.captures import cube_capture
from tests.datasets.captures_co3d import CATEGORY, SEQUENCE, edit_frames, write_co3d, write_jgz
from utils.registry import ConfigError

CAPTURE = cube_capture()
TWO = ("10_1_2", "2_30_4")


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Co3d(Co3d.Config(**{"root_dir": str(root), "category": CATEGORY, **options})).views("train")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_way_to_the_category_is_shown(tmp_path: Path):
    root = write_co3d(tmp_path / "co3d", CAPTURE, 2)
    assert "(did you mean 'cube'?); categories there: cube" in error_of(root, category="cubes")
    assert f"but {root} does; set it to that folder" in error_of(root / CATEGORY)
    assert f"but {root} does; set it to that folder" in error_of(tmp_path)
    assert "does not exist (did you mean 'co3d'?)" in error_of(tmp_path / "co3")


def test_sequences_that_are_meant_are_named(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2, TWO)
    assert error_of(root) == (
        f"dataset.sequence is required, as {root}/cube holds 2 sequences: 10_1_2, 2_30_4; "
        "name one, or take all for a model that knows scenes apart"
    )
    assert error_of(root, sequence="2_30_5") == (
        f"dataset.sequence: {root}/cube holds no sequence '2_30_5' (did you mean '2_30_4'?); its 2: 10_1_2, 2_30_4"
    )


def test_a_sequence_without_frames_is_named(tmp_path: Path):
    root = write_co3d(tmp_path, CAPTURE, 2, TWO)
    edit_frames(root, lambda frames: frames.__delitem__(slice(6)))
    assert "frame_annotations.jgz has no frames of sequence 10_1_2" in error_of(root, sequence="10_1_2")


def test_set_lists_that_are_meant_are_named(tmp_path: Path):
    one, two = (write_co3d(tmp_path / str(version), CAPTURE, version) for version in (1, 2))
    assert "has no set list 'manyview'; those there: train, test" in error_of(one, set_list="manyview")
    assert "(did you mean 'manyview_dev_0'?); those there: manyview_dev_0" in error_of(two, set_list="manyview_dev_1")
    assert "set list 'test' holds no sequences" in error_of(one, set_list="test")
    message = error_of(two, set_list="manyview_dev_0", eval_batches="eval_batches/nothing.json")
    assert "nothing.json does not exist; files there: eval_batches_manyview_dev_0.json" in message


def zipped(content: bytes) -> bytes:
    """The same bytes at any time: names of tests must not depend on it."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize("name", ["frame_annotations.jgz", "sequence_annotations.jgz"])
@pytest.mark.parametrize(
    "content, expected",
    [
        (b"[]", "cannot be read as gzip-compressed JSON (Not a gzipped file"),
        (zipped(b"[1, 2")[:-9], "cannot be read as gzip-compressed JSON"),
        (zipped(b"[1, 2"), "cannot be read as gzip-compressed JSON (Expecting"),
        (zipped(b"{}"), "holds a dict; expected a list"),
        (zipped(b'[{"meta": 1}]'), "is no list of"),
        (zipped(b"[3]"), "is no list of"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, name: str, content: bytes, expected: str):
    path = write_co3d(tmp_path, CAPTURE, 2) / CATEGORY / name
    path.write_bytes(content)
    message = error_of(tmp_path)
    assert message.startswith(f"{path} ") and expected in message


def test_a_file_that_is_missing_is_named(tmp_path: Path):
    path = write_co3d(tmp_path, CAPTURE, 2) / CATEGORY / "sequence_annotations.jgz"
    path.unlink()
    assert error_of(tmp_path) == f"{path} does not exist; files there: frame_annotations.jgz"


@pytest.mark.parametrize(
    "change, options, expected",
    [
        (lambda f: f[1]["image"].pop("size"), {}, "frame 1 is no frame as CO3D has it: key 'size' is missing"),
        (lambda f: f[1]["viewpoint"].pop("R"), {}, "frame 1 is no frame as CO3D has it: key 'R' is missing"),
        (lambda f: f[1]["viewpoint"].update(T=[1, 2]), {}, "found [1, 2], expected 3 finite numbers"),
        (
            lambda f: f[1]["viewpoint"].update(intrinsics_format="px"),
            {},
            "'intrinsics_format' is 'px', known are ndc",
        ),
        (
            lambda f: f[1]["viewpoint"].update(R=[[2, 0, 0], [0, 1, 0], [0, 0, 1]]),
            {},
            "the viewpoint is not rigid",
        ),
        (lambda f: f[1]["image"].update(size=[36, 50]), {}, "frame000001.png is 48x36, not 50x36"),
        (lambda f: f[1]["image"].update(path="../a.png"), {}, "path '../a.png' leaves the data folder"),
        (lambda f: f[1].update(mask=None), {}, "frame 1 has no mask; set dataset.use_masks=false"),
        (lambda f: f[1]["mask"].update(path="cube/m.png"), {}, "cube/m.png does not exist; it is the mask of"),
        (lambda f: f[1]["mask"].update(bounding_box_xywh=[5, 5, 0.1, 9]), {}, "leaves 0x11 px of"),
        (
            lambda f: None,
            {"use_masks": False},
            "neither a mask nor a box around the object; set",
        ),
        (lambda f: [x.update(viewpoint=None) for x in f], {}, "and all others: frames are without a camera"),
        (
            lambda f: [x.update(depth=None) for x in f],
            {"use_depth": True},
            "there is no depth map; set",
        ),
        (
            lambda f: f[1]["depth"].update(path="d.png"),
            {"use_depth": True},
            "d.png does not exist; copy the",
        ),
        (lambda f: f[1]["depth"].update(scale_adjustment=0), {}, "'scale_adjustment' is 0"),
    ],
)
def test_a_frame_that_is_broken_is_named(tmp_path: Path, change: Any, options: dict, expected: str):
    root = write_co3d(tmp_path, CAPTURE, 2)
    edit_frames(root, change)
    assert expected in error_of(root, **options)


def test_lists_that_are_broken_are_named(tmp_path: Path):
    path = write_co3d(tmp_path, CAPTURE, 2) / CATEGORY / "set_lists" / "set_lists_manyview_dev_0.json"
    for content, expected in ((["a", 1], "expected lists of frames"), ([["a", 1]], "expected [sequence, number, path")):
        path.write_text(json.dumps({"train": content}))
        assert expected in error_of(tmp_path, set_list="manyview_dev_0")
    path.write_text(json.dumps({"val": [[SEQUENCE, 0, f"{CATEGORY}/{SEQUENCE}/images/frame000000.png"]]}))
    assert f"has no frames of {SEQUENCE} to train on" in error_of(tmp_path, set_list="manyview_dev_0")


def test_sequences_of_an_empty_category_are_missed(tmp_path: Path):
    write_jgz(write_co3d(tmp_path, CAPTURE, 2) / CATEGORY / "sequence_annotations.jgz", [])
    assert error_of(tmp_path) == f"{tmp_path}/cube holds no sequences; choose another category or set list"


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"set_list": "a", "eval_every": 8}, "set_list and eval_every both choose what is held out"),
        ({"eval_batches": "a.json"}, "eval_batches replaces the test views of a set list; give set_list"),
        ({"img_wh": [8, 8]}, "crops have many; set img_max_side"),
        ({"img_max_side": 8, "img_downscale": 2}, "img_downscale and img_max_side both set the image size"),
        ({"max_frames": 0}, "max_frames = 0"),
        ({"mask_threshold": 1.5}, "expected mask_threshold in"),
    ],
)
def test_options_that_contradict_are_refused(options: dict, expected: str):
    with pytest.raises(ValueError, match=expected):
        Co3d.Config(root_dir="nowhere", category="cube", **options)
