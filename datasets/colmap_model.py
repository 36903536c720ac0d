"""A COLMAP model in memory: cameras, images and points as `colmap_files` reads them.

Poses here are COLMAP's own: world to camera, x right, y down, z forward. Its pixels agree with ours: the upper left
corner of an image is (0, 0), and the centre of its first pixel (0.5, 0.5).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy.spatial.transform import Rotation

from datasets.lenses import Lens

NO_POINT = -1
"""Stands for the point of a feature that was not triangulated."""

PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
}
"""What the numbers of a camera mean (https://colmap.github.io/cameras.html); distortion is named as by OpenCV."""
DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
FISHEYE_DISTORTION = ("k1", "k2", "k3", "k4")


@dataclass
class ColmapCamera:
    """Intrinsics that any number of images share.

    Attributes:
        number: by which images refer to it.
        model: a key of `PARAMETERS`.
        width, height: of the photographs it was calibrated for, in pixels.
        parameters: in the order of `PARAMETERS[model]`, in pixels of that size.
    """

    number: int
    model: str
    width: int
    height: int
    parameters: list[float]

    def lens(self) -> Lens:
        """The lens, in pixels of the calibrated size."""
        value = dict(zip(PARAMETERS[self.model].split(), self.parameters, strict=True))
        is_fisheye = "FISHEYE" in self.model
        distortion = torch.zeros(8)
        for place, name in enumerate(FISHEYE_DISTORTION if is_fisheye else DISTORTION):
            distortion[place] = value.get(name, 0.0)
        focal = [value["f"]] * 2 if "f" in value else [value["fx"], value["fy"]]
        return Lens(torch.tensor(focal), torch.tensor([value["cx"], value["cy"]]), distortion, is_fisheye)


@dataclass
class ColmapImage:
    """A registered photograph.

    Attributes:
        name: its path below the folder of images.
        camera: number of its camera.
        quaternion: [4] rotation of world to camera, w first, of any length but 0.
        translation: [3] of world to camera.
        pixel: [K, 2] continuous pixels of its features, at the calibrated size.
        point: [K] numbers of the points they show, `NO_POINT` for none.
    """

    name: str
    camera: int
    quaternion: Float[np.ndarray, "4"]
    translation: Float[np.ndarray, "3"]
    pixel: Float[np.ndarray, "K 2"]
    point: Int[np.ndarray, "K"]

    def pose(self) -> Float[np.ndarray, "3 4"]:
        """Camera to world, rigid, OpenGL: x right, y up, looking along -z."""
        w, x, y, z = self.quaternion
        turn = Rotation.from_quat((x, y, z, w)).as_matrix().T
        return np.column_stack((turn * (1, -1, -1), -turn @ self.translation))


@dataclass
class ColmapPoints:
    """The sparse points.

    Attributes:
        number: [M] by which features refer to them, ascending.
        position: [M, 3] in the model's world.
        color: [M, 3] red, green, blue.
        error: [M] mean reprojection error in pixels.
    """

    number: Int[np.ndarray, "M"]
    position: Float[np.ndarray, "M 3"]
    color: UInt8[np.ndarray, "M 3"]
    error: Float[np.ndarray, "M"]

    def __len__(self) -> int:
        return len(self.number)


@dataclass
class ColmapModel:
    """One reconstruction.

    Attributes:
        cameras: by number.
        images: at least one, sorted by name, each with a camera in `cameras` and points in `points`.
        points: those that were triangulated, possibly none.
    """

    cameras: dict[int, ColmapCamera]
    images: list[ColmapImage]
    points: ColmapPoints
