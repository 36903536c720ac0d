import numpy as np
import pytest
import torch

from datasets.cameras import Cameras
from datasets.colmap_model import PARAMETERS, ColmapCamera, ColmapImage

WIDTH, HEIGHT = 640, 480
PLACE = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))
"""Directions as x / z and y / z."""


def perspective(place, k=(0, 0, 0, 0, 0, 0), p=(0, 0)):
    """The rational model, term by term as OpenCV documents it."""
    x, y = place.T
    r2 = x * x + y * y
    scale = (1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3) / (1 + k[3] * r2 + k[4] * r2**2 + k[5] * r2**3)
    shifted = (
        x * scale + 2 * p[0] * x * y + p[1] * (r2 + 2 * x * x),
        y * scale + p[0] * (r2 + 2 * y * y) + 2 * p[1] * x * y,
    )
    return np.stack(shifted, axis=-1)


def fisheye(place, k=(0, 0, 0, 0)):
    radius = np.linalg.norm(place, axis=-1, keepdims=True)
    angle = np.arctan(radius)
    reach = angle * (1 + k[0] * angle**2 + k[1] * angle**4 + k[2] * angle**6 + k[3] * angle**8)
    return place * reach / radius


FOCAL = [500.0, 320.0, 240.0]
FOCALS = [500.0, 510.0, 321.0, 242.0]
CASES = {
    "SIMPLE_PINHOLE": (FOCAL, perspective(PLACE)),
    "PINHOLE": (FOCALS, perspective(PLACE)),
    "SIMPLE_RADIAL": ([*FOCAL, 0.1], perspective(PLACE, (0.1, 0, 0, 0, 0, 0))),
    "RADIAL": ([*FOCAL, 0.1, -0.05], perspective(PLACE, (0.1, -0.05, 0, 0, 0, 0))),
    "OPENCV": ([*FOCALS, 0.1, -0.05, 0.01, 0.02], perspective(PLACE, (0.1, -0.05, 0, 0, 0, 0), (0.01, 0.02))),
    "OPENCV_FISHEYE": ([*FOCALS, 0.1, -0.05, 0.02, 0.01], fisheye(PLACE, (0.1, -0.05, 0.02, 0.01))),
    "FULL_OPENCV": (
        [*FOCALS, 0.1, -0.05, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06],
        perspective(PLACE, (0.1, -0.05, 0.03, 0.04, 0.05, 0.06), (0.01, 0.02)),
    ),
    "SIMPLE_RADIAL_FISHEYE": ([*FOCAL, 0.1], fisheye(PLACE, (0.1, 0, 0, 0))),
    "RADIAL_FISHEYE": ([*FOCAL, 0.1, -0.05], fisheye(PLACE, (0.1, -0.05, 0, 0))),
}


def test_every_camera_model_has_its_case():
    assert set(CASES) == set(PARAMETERS)


@pytest.mark.parametrize("model", CASES)
def test_a_lens_shows_a_direction_where_colmap_says(model: str):
    parameters, distorted = CASES[model]
    focal, center = (
        (np.array([parameters[0]] * 2), parameters[1:3])
        if "f " in PARAMETERS[model]
        else (
            np.array(parameters[:2]),
            parameters[2:4],
        )
    )
    expected = focal * distorted + center
    lens = ColmapCamera(1, model, WIDTH, HEIGHT, parameters).lens()
    cameras = Cameras.with_lenses(torch.eye(4)[None, :3], [lens], torch.tensor([[WIDTH, HEIGHT]]))
    # Into OpenGL's frame.
    points = torch.from_numpy(np.column_stack((PLACE * (1, -1), -np.ones(len(PLACE))))).float()
    pixel, _ = cameras.project(torch.zeros(len(PLACE), dtype=torch.int64), points)
    np.testing.assert_allclose(pixel.numpy(), expected, atol=1e-3)


def test_a_pose_undoes_world_to_camera():
    # A quarter turn around z: the world's x axis is the camera's y axis, which points down.
    image = ColmapImage(
        name="a.png",
        camera=1,
        quaternion=np.array([1.0, 0.0, 0.0, 1.0]),  # any length will do
        translation=np.array([1.0, 2.0, 3.0]),
        pixel=np.zeros((0, 2)),
        point=np.zeros(0, dtype=np.int64),
    )
    pose = image.pose()
    # Right is where camera x grows: R^T e_x = -y; up is -R^T e_y = -x; it looks along R^T e_z = z.
    np.testing.assert_allclose(pose[:, :3].T, [[0, -1, 0], [-1, 0, 0], [0, 0, -1]], atol=1e-12)
    # R (C) + t = 0 with R (x, y, z) = (-y, x, z).
    np.testing.assert_allclose(pose[:, 3], [-2, 1, -3], atol=1e-12)
