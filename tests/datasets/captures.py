"""One small scene in the layouts of all readers: a cube with a colour per face, photographed from around.

Everything is written with the formulas of the formats, in OpenCV's camera frame (x right, y down, z forward) and
without any code of the readers.
"""

import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CENTER = np.array([0.1, -0.05, 0.15])
HALF_SIDE = 0.5
CORNERS = CENTER + HALF_SIDE * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
COLORS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30], [30, 200, 200], [200, 30, 200]])
"""Of the faces at -x, +x, -y, +y, -z, +z."""
BACKDROP = 90
"""Grey where no face is seen."""
SIZES = ((48, 36), (48, 36), (40, 40), (48, 36), (36, 48), (48, 36))
COLMAP_MODELS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "FOV": 7}


@dataclass
class CubeCapture:
    """Photographs of the cube.

    Attributes:
        names: file names without ending, sorted.
        size: width and height of each photograph.
        intrinsics: [V, 3, 3].
        rotation, translation: [V, 3, 3], [V, 3] world to camera.
        photographs: RGBA, alpha 255 where the cube is.
        distances: [H, W] of each photograph, from the camera to the cube along the rays, 0 beside it.
    """

    names: list[str]
    size: list[tuple[int, int]]
    intrinsics: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    photographs: list[np.ndarray] = field(default_factory=list)
    distances: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def project(self, view: int, points: np.ndarray) -> np.ndarray:
        """[M, 2] continuous pixels of world points, by OpenCV."""
        turn, _ = cv2.Rodrigues(self.rotation[view])
        # OpenCV counts from the centre of the first pixel.
        intrinsics = self.intrinsics[view] - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        pixel, _ = cv2.projectPoints(points, turn, self.translation[view], intrinsics, None)
        return pixel[:, 0] + 0.5

    def to_world(self, view: int) -> np.ndarray:
        """[4, 4] OpenGL camera to world."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation[view].T * (1, -1, -1)
        pose[:3, 3] = -self.rotation[view].T @ self.translation[view]
        return pose

    def directions(self, view: int) -> tuple[np.ndarray, np.ndarray]:
        """[3] origin and [H, W, 3] unit directions of the rays of a photograph, world coordinates."""
        width, height = self.size[view]
        column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        local = np.stack((column, row, np.ones_like(row)), axis=-1) @ np.linalg.inv(self.intrinsics[view]).T
        world = local @ self.rotation[view]
        return self.to_world(view)[:3, 3], world / np.linalg.norm(world, axis=-1, keepdims=True)


def cube_capture(sizes: tuple[tuple[int, int], ...] = SIZES, is_plain: bool = False) -> CubeCapture:
    """The cube from as many cameras as there are sizes, around it at different heights, no two of them alike.

    A plain camera has one focal length, and its optical axis passes the middle of the image.
    """
    n_views = len(sizes)
    intrinsics, rotation, translation = np.zeros((n_views, 3, 3)), np.zeros((n_views, 3, 3)), np.zeros((n_views, 3))
    for view, (width, height) in enumerate(sizes):
        angle = 2 * math.pi * view / n_views
        position = 3 * np.array([math.cos(angle), math.sin(angle), 0.4 + 0.1 * view])
        # Not quite at the centre: signs of offsets would hide in symmetry.
        forward = CENTER + [0.05, 0.1, -0.08] - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        rotation[view] = np.stack((right, np.cross(forward, right), forward))
        translation[view] = -rotation[view] @ position
        focal = 55 + view
        intrinsics[view] = [[focal, 0, width / 2 + 1.25], [0, focal + 2, height / 2 - 0.75], [0, 0, 1]]
        if is_plain:
            intrinsics[view] = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
    names = [f"{view:03d}" for view in range(n_views)]
    capture = CubeCapture(names, list(sizes), intrinsics, rotation, translation)
    seen = [_photograph(*capture.directions(view)) for view in range(n_views)]
    capture.photographs, capture.distances = [pixels for pixels, _ in seen], [distance for _, distance in seen]
    return capture


def _photograph(origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGBA pixels, and distances to where rays enter the cube (slab method)."""
    with np.errstate(divide="ignore"):
        low, high = ((CENTER + side * HALF_SIDE - origin) / directions for side in (-1, 1))
    near, far = np.minimum(low, high), np.maximum(low, high)
    is_hit = near.max(-1) < far.min(-1)
    axis = near.argmax(-1)
    is_upper = np.take_along_axis(high < low, axis[..., None], -1)[..., 0]
    color = np.where(is_hit[..., None], COLORS[2 * axis + is_upper], BACKDROP)
    pixels = np.concatenate((color, 255 * is_hit[..., None]), axis=-1).astype(np.uint8)
    return pixels, np.where(is_hit, near.max(-1), 0.0)


def write_images(folder: Path, capture: CubeCapture, ending: str = ".png", n_channels: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(capture.names, capture.photographs, strict=True):
        Image.fromarray(pixels[:, :, :n_channels]).save(folder / f"{name}{ending}")


def write_masks(folder: Path, capture: CubeCapture, names: list[str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{name}.png" for name in capture.names] if names is None else names
    for name, pixels in zip(names, capture.photographs, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, :, 3]).save(folder / name)


def _frames(capture: CubeCapture) -> list[dict]:
    return [
        {
            "file_path": f"images/{capture.names[view]}.png",
            "transform_matrix": capture.to_world(view).tolist(),
            "fl_x": capture.intrinsics[view, 0, 0],
            "fl_y": capture.intrinsics[view, 1, 1],
            "cx": capture.intrinsics[view, 0, 2],
            "cy": capture.intrinsics[view, 1, 2],
            "w": capture.size[view][0],
            "h": capture.size[view][1],
        }
        for view in range(len(capture))
    ]


def write_blender(root: Path, capture: CubeCapture) -> Path:
    """All photographs, with alpha, as each of the three splits."""
    write_images(root / "images", capture, n_channels=4)
    for split in ("train", "val", "test"):
        (root / f"transforms_{split}.json").write_text(json.dumps({"frames": _frames(capture)}))
    return root


def write_transforms(root: Path, capture: CubeCapture, n_channels: int = 3, **shared) -> Path:
    """`shared` are further keys of the file; they win over the intrinsics of frames."""
    write_images(root / "images", capture, n_channels=n_channels)
    frames = [{key: value for key, value in frame.items() if key not in shared} for frame in _frames(capture)]
    (root / "transforms.json").write_text(json.dumps({"camera_model": "PINHOLE", **shared, "frames": frames}))
    return root


def neus_matrices(capture: CubeCapture, scale: float = 1.6) -> dict[str, np.ndarray]:
    """The content of cameras_sphere.npz, with a ball around the cube of which `scale` is the radius."""
    scale_mat = np.diag([scale, scale, scale, 1.0])
    scale_mat[:3, 3] = CENTER
    matrices = {}
    for view in range(len(capture)):
        world_mat = np.eye(4)
        pose = np.column_stack((capture.rotation[view], capture.translation[view]))
        # Projections have no scale of their own, not even a sign.
        world_mat[:3] = (-2.0 if view == 1 else 1.0 + view) * capture.intrinsics[view] @ pose
        matrices |= {f"world_mat_{view}": world_mat, f"scale_mat_{view}": scale_mat}
    return matrices


def write_neus(root: Path, capture: CubeCapture, with_masks: bool = True, ending: str = ".png") -> Path:
    write_images(root / "image", capture, ending)
    if with_masks:
        write_masks(root / "mask", capture)
    np.savez(root / "cameras_sphere.npz", **neus_matrices(capture))
    return root


def write_llff(root: Path, capture: CubeCapture, folder: str = "images") -> Path:
    """Of plain cameras; the cube is between the depths 1.5 and 6."""
    write_images(root / folder, capture)
    rows = []
    for view, (width, height) in enumerate(capture.size):
        right, up, back, place = capture.to_world(view)[:3].T
        matrix = np.column_stack((-up, right, back, place, (height, width, capture.intrinsics[view, 0, 0])))
        rows.append([*matrix.reshape(-1), 1.5, 6])
    np.save(root / "poses_bounds.npy", rows)
    return root


@dataclass
class ColmapText:
    """The three files of a model before they are written; tests break them.

    Attributes:
        cameras: number, model, width, height, parameters.
        images: number, quaternion (w first), translation, camera, name, features as (x, y, number of the point).
        points: number, position, colour, error.
    """

    cameras: list[tuple[int, str, int, int, list[float]]]
    images: list[tuple[int, np.ndarray, np.ndarray, int, str, list[tuple[float, float, int]]]]
    points: list[tuple[int, np.ndarray, tuple[int, int, int], float]]


def colmap_model(capture: CubeCapture, ending: str = ".png") -> ColmapText:
    """A camera per photograph, and the corners of the cube as points that every photograph observes."""
    cameras, images = [], []
    points = [(10 * row + 3, corner, (row, 2 * row, 255), 0.1 * row) for row, corner in enumerate(CORNERS)]
    for view, (width, height) in enumerate(capture.size):
        (fx, _, cx), (_, fy, cy), _ = capture.intrinsics[view]
        cameras.append((view + 5, "PINHOLE", width, height, [fx, fy, cx, cy]))
        features = [(1.5, 2.5, -1)]
        features += [(*pixel, point[0]) for pixel, point in zip(capture.project(view, CORNERS), points, strict=True)]
        rotation = capture.rotation[view]
        quaternion = _quaternion(rotation)
        name = f"{capture.names[view]}{ending}"
        images.append((100 - view, quaternion, capture.translation[view], view + 5, name, features))
    return ColmapText(cameras, images, points)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """w, x, y, z from the eigenvector of a symmetric matrix (Bar-Itzhack 2000)."""
    ((a, b, c), (d, e, f), (g, h, i)) = rotation
    matrix = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(matrix)[1][:, -1]


def write_model(folder: Path, model: ColmapText, form: str) -> None:
    """`form` is "bin" or "txt"."""
    folder.mkdir(parents=True, exist_ok=True)
    (_write_text if form == "txt" else _write_binary)(folder, model)


def write_colmap(root: Path, capture: CubeCapture, form: str = "bin", sparse: str = "sparse/0") -> Path:
    write_images(root / "images", capture)
    write_model(root / sparse, colmap_model(capture), form)
    return root


def _write_text(folder: Path, model: ColmapText) -> None:
    def joined(*values) -> str:
        return " ".join(repr(float(v)) if isinstance(v, float | np.floating) else str(v) for v in values)

    cameras = [joined(*camera[:4], *camera[4]) for camera in model.cameras]
    images = []
    for number, quaternion, translation, camera, name, features in model.images:
        images.append(joined(number, *quaternion, *translation, camera, name))
        images.append(joined(*(value for feature in features for value in feature)))
    points = [joined(n, *position, *color, error, 100, 1, 99, 1) for n, position, color, error in model.points]
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.txt").write_text("\n".join(["# A comment", "#   and more of it", *lines, ""]))


def _write_binary(folder: Path, model: ColmapText) -> None:
    content = struct.pack("<Q", len(model.cameras))
    for number, kind, width, height, parameters in model.cameras:
        content += struct.pack("<iiQQ", number, COLMAP_MODELS.get(kind, 99), width, height)
        content += struct.pack(f"<{len(parameters)}d", *parameters)
    (folder / "cameras.bin").write_bytes(content)

    content = struct.pack("<Q", len(model.images))
    for number, quaternion, translation, camera, name, features in model.images:
        content += struct.pack("<i7di", number, *quaternion, *translation, camera) + name.encode() + b"\0"
        content += struct.pack("<Q", len(features)) + b"".join(struct.pack("<ddq", *feature) for feature in features)
    (folder / "images.bin").write_bytes(content)

    content = struct.pack("<Q", len(model.points))
    for number, position, color, error in model.points:
        content += struct.pack("<Q3d3Bd", number, *position, *color, error)
        content += struct.pack("<Q4i", 2, 100, 1, 99, 1)
    (folder / "points3D.bin").write_bytes(content)
