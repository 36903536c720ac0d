"""The drawings of a scene, read again."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from datasets.inspection import Inspection, inspect_scene
from datasets.inspection_files import BORDER, BOX, PHOTOGRAPHS, SIDE, write_inspection
from datasets.points import SparsePoints
from datasets.synthetic import look_at_origin, spiral
from tests.datasets.test_inspection import ball_views, disc, views_from

RED = (250, 10, 10)


@pytest.fixture(scope="module")
def scene() -> Inspection:
    points = SparsePoints.unobserved(torch.tensor([[0.5, 0.25, -0.75]]), torch.tensor([RED], dtype=torch.uint8))
    # At most 4 from the origin along any axis, the cameras are what is farthest away.
    held_out = views_from(look_at_origin(torch.tensor([[4.0, 0, 0]])), disc(10))
    splits = {"train": ball_views(points=points), "val": held_out, "test": held_out}
    return inspect_scene(splits, 1.5, False)


def test_the_plan_shows_points_box_and_cameras_at_their_places(scene: Inspection, tmp_path) -> None:
    image = np.asarray(Image.open(write_inspection(scene, tmp_path)[0]))
    assert image.shape == (SIDE, 2 * SIDE, 3)
    scale = (SIDE / 2 - BORDER) / 4
    from_above, from_the_side = image[:, :SIDE], image[:, SIDE:]

    def place(x: float, up: float) -> tuple[int, int]:
        return int(SIDE / 2 - scale * up), int(SIDE / 2 + scale * x)

    assert tuple(from_above[place(0.5, 0.25)]) == RED
    assert tuple(from_the_side[place(0.5, -0.75)]) == RED
    row, column = place(1.5, 1.0)
    near = from_above[row, column - 1 : column + 2].astype(int)
    assert np.abs(near - BOX).sum(-1).min() < 150
    row, column = place(4, 0)
    near = from_above[row - 3 : row + 4, column - 8 : column + 1].reshape(-1, 3).astype(int)
    assert np.abs(near - PHOTOGRAPHS["val"]).sum(-1).min() < 100


def test_the_solid_holds_cameras_points_and_lines_upright(scene: Inspection, tmp_path) -> None:
    read = trimesh.load(write_inspection(scene, tmp_path)[1], process=False)
    parts = {}
    for node in read.graph.nodes_geometry:
        transform, name = read.graph[node]
        vertices = trimesh.transform_points(np.asarray(read.geometry[name].vertices), transform)
        # y is up in glTF: (x, z, -y).
        parts[node] = vertices[:, [0, 2, 1]] * (1, -1, 1)
    assert set(parts) == {"cameras-train", "cameras-val", "points", "box", "region"}
    np.testing.assert_allclose(parts["points"], [[0.5, 0.25, -0.75]], atol=1e-6)
    np.testing.assert_allclose(np.abs(parts["box"]), 1.5, atol=1e-6)
    away = np.linalg.norm(parts["region"] - scene.center.numpy(), axis=1)
    np.testing.assert_allclose(away, scene.reach, rtol=1e-4)

    corners = parts["cameras-train"].reshape(-1, 5, 3)
    position = (4 * spiral(len(corners), 0)).numpy()
    np.testing.assert_allclose(corners[:, 0], position, atol=1e-5)
    # Cameras look at the origin, so the middle of their image is nearer to it.
    assert (np.linalg.norm(corners[:, 1:].mean(1), axis=1) < 3.9).all()


def test_cameras_are_closed_solids_wound_outward(scene: Inspection, tmp_path) -> None:
    read = trimesh.load(write_inspection(scene, tmp_path)[1], process=False)
    body = read.geometry[read.graph["cameras-val"][1]]
    welded = trimesh.Trimesh(body.vertices, body.faces)
    assert welded.is_watertight and welded.volume > 0
