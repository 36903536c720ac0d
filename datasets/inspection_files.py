"""An inspected scene for the eye: a plan from above and from the side, and a model to turn around.

Both show cameras, sparse points, the model's box and the region of interest in scene coordinates.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import trimesh
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from datasets.cameras import Cameras
from datasets.inspection import Inspection
from datasets.points import SparsePoints
from utils.similarity import Z_TO_Y_UP

SIDE, BORDER = 800, 50
"""Pixels of a plan and of the margin around what it shows."""
INK, BOX, REGION = (40, 40, 40), (200, 60, 40), (40, 140, 60)
PHOTOGRAPHS = {"train": (40, 90, 200), "val": (240, 150, 20), "test": (240, 150, 20)}
"""Colours of cameras by split."""
LEGEND = {"training": PHOTOGRAPHS["train"], "held out": PHOTOGRAPHS["val"], "box": BOX, "region of interest": REGION}
FRUSTUM = 0.06
"""Height of a drawn camera over the size of the scene."""
MOST_POINTS = 50_000
EDGES = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]])
"""Edges of a drawn camera, whose apex is corner 0."""
PYRAMID = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1], [1, 3, 2], [1, 4, 3]])
"""Its triangles, wound counter-clockwise seen from outside."""

Drawing = UInt8[np.ndarray, "H W 3"]


def write_inspection(scene: Inspection, folder: Path) -> list[Path]:
    """Writes `inspection.png` and `inspection.glb`; the folder is created where it is missing.

    Returns:
        Their paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan, model = folder / "inspection.png", folder / "inspection.glb"
    Image.fromarray(draw_plan(scene)).save(plan)
    solid_scene(scene).export(model)
    return [plan, model]


def draw_plan(scene: Inspection) -> Drawing:
    """The scene from above (x right, y up) and from the side (x right, z up)."""
    return np.concatenate([_plan(scene, axes) for axes in ((0, 1), (0, 2))], axis=1)


def solid_scene(scene: Inspection) -> trimesh.Scene:
    """Cameras as pyramids, sparse points, box and region as lines, stood up to glTF's y."""
    solid, height = trimesh.Scene(), FRUSTUM * _extent(scene)
    transform = Z_TO_Y_UP.numpy()
    for split, cameras in _photographed(scene):
        corners = _frusta(cameras, height).numpy()  # [V, 5, 3]
        faces = PYRAMID + 5 * np.arange(len(corners))[:, None, None]
        body = trimesh.Trimesh(corners.reshape(-1, 3), faces.reshape(-1, 3), process=False)
        body.visual.face_colors = (*PHOTOGRAPHS[split], 255)  # type: ignore[union-attr]
        solid.add_geometry(body, node_name=f"cameras-{split}", transform=transform)
    if scene.train.points is not None:
        position, color = _cloud(scene.train.points)
        solid.add_geometry(trimesh.PointCloud(position, color), node_name="points", transform=transform)
    for name, lines, color in (("box", _box(scene), BOX), ("region", _circles(scene), REGION)):
        path: Any = trimesh.load_path(lines)
        path.colors = np.tile((*color, 255), (len(path.entities), 1))
        solid.add_geometry(path, node_name=name, transform=transform)
    return solid


def _photographed(scene: Inspection) -> Iterator[tuple[str, Cameras]]:
    """Splits with photographs, those that are the views of another split left out."""
    splits = list(scene.splits.items())
    for row, (split, views) in enumerate(splits):
        if views.is_real and not any(views is other for _, other in splits[:row]):
            yield split, views.cameras.to("cpu")


def _extent(scene: Inspection) -> float:
    """Half side of a cube around the origin that holds all cameras, the region and the box."""
    farthest = max(cameras.pose[:, :, 3].abs().max().item() for _, cameras in _photographed(scene))
    return max(farthest, scene.radius, scene.center.abs().max().item() + scene.reach)


def _frusta(cameras: Cameras, height: float) -> Float[Tensor, "V 5 3"]:
    """The place of each camera, and the corners of its image at this depth, anticlockwise seen from the camera."""
    left, above = (cameras.center / cameras.focal).unbind(-1)
    right, below = ((cameras.size - cameras.center) / cameras.focal).unbind(-1)
    right, up = torch.stack((-left, right, right, -left), dim=-1), torch.stack((-below, -below, above, above), dim=-1)
    local = height * torch.stack((right, up, -torch.ones_like(right)), dim=-1)  # [V, 4, 3]
    apex = cameras.pose[:, None, :, 3]
    return torch.cat((apex, local @ cameras.pose[:, :, :3].mT + apex), dim=1)


def _cloud(points: SparsePoints) -> tuple[Float[np.ndarray, "M 3"], UInt8[np.ndarray, "M 3"]]:
    """Positions and colours of not too many points."""
    kept = slice(None, None, len(points) // MOST_POINTS + 1)
    position = points.position[kept].cpu().numpy()
    color = np.full_like(position, 128, dtype=np.uint8) if points.color is None else points.color[kept].cpu().numpy()
    return position, color


def _box(scene: Inspection) -> Float[np.ndarray, "12 2 3"]:
    """Edges of the model's box."""
    corner = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
    pairs = [(a, b) for a in range(8) for b in range(a) if np.abs(corner[a] - corner[b]).sum() == 2]
    return scene.radius * corner[np.array(pairs)]


def _circles(scene: Inspection) -> Float[np.ndarray, "N 2 3"]:
    """Great circles of the region of interest, around each axis."""
    angle = np.linspace(0, 2 * np.pi, 65)
    circle = scene.reach * np.stack((np.cos(angle), np.sin(angle), 0 * angle), axis=-1)
    circles = [np.roll(circle, shift, axis=1) for shift in range(3)]
    lines = np.concatenate([np.stack((one[:-1], one[1:]), axis=1) for one in circles])
    return lines + scene.center.numpy()


def _plan(scene: Inspection, axes: tuple[int, int]) -> Drawing:
    """What is seen along one axis; without perspective, so parallel lines stay so."""
    image = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    extent = _extent(scene)
    scale = (SIDE / 2 - BORDER) / extent

    def place(points: np.ndarray) -> np.ndarray:
        """[..., 3] scene to [..., 2] pixels of the plan."""
        return SIDE / 2 + scale * points[..., list(axes)] * (1, -1)

    if scene.train.points is not None:
        position, color = _cloud(scene.train.points)
        # Far points would lie in the margin; in a plan without perspective they would hide the object.
        kept = np.abs(position).max(-1) <= extent
        column, row = place(position[kept]).astype(int).T
        for right, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
            image[row + down, column + right] = color[kept]
    for split, cameras in _photographed(scene):
        corners = place(_frusta(cameras, FRUSTUM * extent).numpy())  # [V, 5, 2]
        _draw_lines(image, corners[:, EDGES], PHOTOGRAPHS[split])
    _draw_lines(image, place(_box(scene)), BOX)
    _draw_lines(image, place(_circles(scene)), REGION)
    _write_labels(image, scale, axes)
    return image


def _draw_lines(image: Drawing, lines: np.ndarray, color: tuple[int, int, int]) -> None:
    """Draws [..., 2, 2] lines given in pixels."""
    # OpenCV takes integers with 4 bits behind the point.
    ends = np.round(16 * lines.reshape(-1, 2, 2)).astype(np.int32)
    cv2.polylines(image, list(ends), False, color, 1, cv2.LINE_AA, shift=4)


def _write_labels(image: Drawing, scale: float, axes: tuple[int, int]) -> None:
    """Says what is seen, and draws a round length for comparison."""
    length = 10.0 ** np.floor(np.log10(SIDE / 2 / scale))
    _draw_lines(image, np.array([[[BORDER, SIDE - 20], [BORDER + scale * length, SIDE - 20]]]), INK)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, f"{length:g}", (BORDER, SIDE - 28), font, 0.5, INK, 1, cv2.LINE_AA)
    title = f"{'from above' if axes == (0, 1) else 'from the side'}: x to the right, {'xyz'[axes[1]]} up"
    cv2.putText(image, title, (BORDER, 30), font, 0.6, INK, 1, cv2.LINE_AA)
    for row, (name, color) in enumerate(LEGEND.items()):
        cv2.putText(image, name, (SIDE - 160, SIDE - 70 + 18 * row), font, 0.45, color, 1, cv2.LINE_AA)
