"""One scene in the layouts of all readers: whoever reads it, the same rays see the same colours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import datasets
from datasets.views import Views
from tests.datasets.captures import (
    CENTER,
    COLORS,
    CORNERS,
    HALF_SIDE,
    CubeCapture,
    cube_capture,
    write_blender,
    write_colmap,
    write_llff,
    write_neus,
    write_transforms,
)
from tests.datasets.captures_co3d import CATEGORY, write_co3d

CAPTURE, PLAIN = cube_capture(), cube_capture(is_plain=True)
CO3D = {"category": CATEGORY, "box_crop": False}
READERS = {
    "blender": ("blender", lambda root: write_blender(root, CAPTURE), {"scene": "cube"}),
    "neus": ("dtu", lambda root: write_neus(root, CAPTURE), {}),
    "colmap binary": ("colmap", lambda root: write_colmap(root, CAPTURE, "bin"), {}),
    "colmap text": ("colmap", lambda root: write_colmap(root, CAPTURE, "txt"), {"center_est_method": "lookat"}),
    "transforms": ("transforms", lambda root: write_transforms(root, CAPTURE), {}),
    "co3d, version 1": ("co3d", lambda root: write_co3d(root, CAPTURE, 1), CO3D),
    "co3d, version 2": ("co3d", lambda root: write_co3d(root, CAPTURE, 2), {**CO3D, "center_est_method": "lookat"}),
    "llff": ("llff", lambda root: write_llff(root, PLAIN), {"eval_every": None}),
}


@pytest.fixture(params=READERS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def views(kind: str, tmp_path: Path) -> Views:
    name, write, options = READERS[kind]
    reader = datasets.get(name)
    return reader(reader.Config(root_dir=str(write(tmp_path)), **options)).views("train")


@pytest.fixture
def capture(kind: str) -> CubeCapture:
    """What was photographed: LLFF knows plain cameras only."""
    return PLAIN if kind == "llff" else CAPTURE


def to_dataset(views: Views) -> np.ndarray:
    return np.eye(4) if views.to_dataset is None else views.to_dataset.numpy()


def test_all_readers_give_the_same_rays_in_the_coordinates_of_the_files(views: Views, capture: CubeCapture):
    similarity = to_dataset(views)
    scale = np.cbrt(np.linalg.det(similarity[:3, :3]))
    for view in range(len(capture)):
        rays = views.image(view, torch.zeros(3)).rays
        origins = rays.origins.double().numpy() @ similarity[:3, :3].T + similarity[:3, 3]
        directions = rays.directions.double().numpy() @ similarity[:3, :3].T / scale
        origin, expected = capture.directions(view)
        np.testing.assert_allclose(origins, np.broadcast_to(origin, origins.shape), atol=1e-5)
        np.testing.assert_allclose(directions, expected.reshape(-1, 3), atol=1e-5)


def test_all_readers_give_the_same_pixels(views: Views, capture: CubeCapture):
    assert [name[-3:] for name in views.names] == capture.names  # CO3D says "frame" before the number
    assert [views.size(view) for view in range(len(views))] == capture.size
    expected = np.concatenate([pixels.reshape(-1, 4) for pixels in capture.photographs])
    np.testing.assert_array_equal(views.color.numpy(), expected[:, :3])
    if views.has_mask:
        np.testing.assert_array_equal(views.alpha.numpy(), expected[:, 3])


def test_corners_of_the_cube_are_seen_where_opencv_sees_them(views: Views, capture: CubeCapture):
    in_scene = np.linalg.solve(to_dataset(views), np.column_stack((CORNERS, np.ones(8))).T)[:3].T
    for view in range(len(capture)):
        pixel, depth = views.cameras.project(torch.full((8,), view), torch.from_numpy(in_scene).float())
        np.testing.assert_allclose(pixel.numpy(), capture.project(view, CORNERS), atol=1e-3)
        assert (depth > 0).all()


def test_the_middle_of_a_face_has_the_colour_of_the_face(views: Views, capture: CubeCapture):
    similarity, n_seen = to_dataset(views), 0
    for face, color in enumerate(COLORS):
        outward = np.zeros(3)
        outward[face // 2] = 2 * (face % 2) - 1
        middle = CENTER + HALF_SIDE * outward
        in_scene = torch.from_numpy(np.linalg.solve(similarity, [*middle, 1])[:3]).float()
        for view in range(len(capture)):
            origin, _ = capture.directions(view)
            if (origin - middle) @ outward < 0.5:  # seen from behind or at a grazing angle
                continue
            place = views.cameras.project(torch.tensor([view]), in_scene[None])[0].floor().long()
            target = views.draw(torch.tensor([view]), place, torch.zeros(1, 3)).target
            assert (255 * target.color[0]).round().tolist() == color.tolist()
            n_seen += 1
    assert n_seen > 12
