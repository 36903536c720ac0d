from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.dtu_reference import DtuReference, read_dtu_reference
from systems import dtu_protocol
from systems.dtu_protocol import dtu_error, grid_samples, is_near, is_observed
from tests.dtu import BOX, SCANNED, corners, write_scan
from utils.registry import ConfigError
from utils.types import Mesh


@pytest.fixture
def reference(tmp_path: Path) -> DtuReference:
    return read_dtu_reference(write_scan(tmp_path), 7)


def mesh_of(vertices: np.ndarray) -> Mesh:
    body = corners(vertices)
    return Mesh(torch.tensor(body.vertices), torch.tensor(body.faces).long())


def test_a_case_made_by_hand_has_the_scores_counted_by_hand(reference: DtuReference):
    over = SCANNED + [0, 0, 0.5]
    over[:30, 2] = 1.5
    vertices = np.concatenate(
        [
            over[:90],  # the last row of the scan, x = 45, has nothing over it
            [[20.0, 20, 25], [25, 20, 19]],  # 25 mm is left out; 19 mm counts
            [[-6.0, 20, 0]],  # 6 mm from the scan, but where the scanner saw nothing
            [[200.0, 20, 0]],  # outside of the widened box, though 50 mm from a point of the scan
        ]
    )
    error = dtu_error(mesh_of(vertices), reference)

    # 30 points at 1.5 mm, 60 at 0.5 mm, one at 19 mm. The point at 25 mm was seen, too.
    assert error["accuracy"] == pytest.approx((30 * 1.5 + 60 * 0.5 + 19) / 91)
    assert error["n_points"] == 92 and error["share_beyond_20_mm"] == pytest.approx(1 / 92)
    # 101 points above the table: 30 at 1.5 mm, 60 at 0.5 mm, 10 of the last row at 5 mm from their neighbours' 0.5 mm,
    # and the far one, which has nothing within 20 mm.
    assert error["completeness"] == pytest.approx((30 * 1.5 + 60 * 0.5 + 10 * np.hypot(5, 0.5)) / 100)
    assert error["n_truth_points"] == 101 and error["share_of_truth_beyond_20_mm"] == pytest.approx(1 / 101)
    assert error["chamfer"] == (error["accuracy"] + error["completeness"]) / 2


def test_a_point_that_the_scanner_could_not_see_is_complete_but_not_accurate(reference: DtuReference):
    # Only unseen, 6 mm beside the scan, and one seen point: completeness takes the nearer of both.
    vertices = np.array([[-6.0, 20, 0], [20, 20, 1]])
    error = dtu_error(mesh_of(vertices), reference)
    assert error["n_points"] == 1 and error["accuracy"] == pytest.approx(1.0)
    distance = np.linalg.norm(SCANNED[:, None] - vertices, axis=-1).min(axis=1)
    assert error["completeness"] == pytest.approx(distance[distance < 20].mean())


def test_the_box_is_widened_by_60_mm_below_and_120_mm_above(reference: DtuReference):
    lower, upper = BOX
    for axis in range(3):
        beside = np.tile(np.array([20.0, 20, 20]), (4, 1))
        beside[:, axis] = [lower[axis] - 60, lower[axis] - 60.01, upper[axis] + 119.99, upper[axis] + 120]
        assert is_near(beside, reference).tolist() == [True, False, True, False]


def test_cells_are_those_that_a_place_rounds_to(reference: DtuReference):
    # Cells stand at -10, -8, ...; the first that the scanner saw is the one around x = -2.
    x = np.array([-11.01, -3.01, -2.99, 51.01])
    points = np.stack([x, np.full(4, 20.0), np.full(4, 20.0)], axis=1)
    assert is_observed(points, reference).tolist() == [False, False, True, False]


def grid_samples_one_by_one(mesh: Mesh, spacing: float) -> np.ndarray:
    """The definition, triangle by triangle and place by place."""
    found = []
    for a, b, c in mesh.vertices[mesh.faces].numpy():
        first, second = b - a, c - a
        area = np.linalg.norm(np.cross(first, second))
        if area == 0:
            continue
        step = spacing * np.sqrt(np.linalg.norm(first) * np.linalg.norm(second) / area)
        n, m = (int(np.floor(np.linalg.norm(side) / step)) for side in (first, second))
        for i in range(n):
            for j in range(m):
                if (i + 0.5) / n + (j + 0.5) / m < 1:
                    found.append(a + (i + 0.5) / n * first + (j + 0.5) / m * second)
    return np.array(found)


@pytest.mark.parametrize("chunk", [2**20, 10])
def test_triangles_are_sampled_on_a_grid_of_their_sides(monkeypatch, chunk: int):
    monkeypatch.setattr(dtu_protocol, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(90, 3, generator=generator).double()
    vertices[:30] *= 0.2  # too small for samples
    vertices[60:63] = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])  # places exactly on the long side
    vertices[63:66] = 0
    mesh = Mesh(vertices, torch.arange(90).view(-1, 3))
    expected = grid_samples_one_by_one(mesh, 0.25)
    assert len(expected) > 200
    np.testing.assert_allclose(grid_samples(mesh, 0.25), expected, atol=1e-12)


def test_a_plane_over_a_plane_is_off_by_its_height():
    # Scanned every 0.1 mm and 0.4 mm below: points of the mesh, 0.2 mm apart, are at most 0.05 * sqrt(2) beside one.
    axis = np.arange(0, 10.5, 0.1)
    scanned = np.stack([*np.meshgrid(axis, axis), np.zeros((105, 105))], axis=-1).reshape(-1, 3)
    box, plane = np.array([[-1.0, -1, -1], [11, 11, 11]]), np.array([0.0, 0, 1, 1])
    reference = DtuReference(scanned, np.ones((13, 13, 13), dtype=bool), box, 1.0, plane)
    corner = torch.tensor([[0.0, 0, 0.4], [10.4, 0, 0.4], [10.4, 10.4, 0.4], [0, 10.4, 0.4]]).double()
    mesh = Mesh(corner, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    first, again, other = (dtu_error(mesh, reference, seed) for seed in (0, 0, 1))
    assert 0.4 <= first["accuracy"] < np.hypot(0.4, 0.0708)
    # Thinned points lie 0.2 mm or more apart and leave no hole that another would fit into.
    assert 0.4 <= first["completeness"] < np.hypot(0.4, 0.3)
    assert first == again
    assert other["chamfer"] != first["chamfer"] and other["chamfer"] == pytest.approx(first["chamfer"], rel=0.01)


@pytest.mark.parametrize(
    "vertices, said",
    [
        (
            SCANNED / 1000,
            "the mesh is 0.045 mm large, less than anything on DTU's table; it must be in DTU's millimetres",
        ),
        (SCANNED + 1000, "none of 100 points of the mesh lies where the scanner saw, in the box from"),
        (SCANNED[[0, 9]] + [2.0, 2, 45], "none of 2 distances from the mesh to the scan is below 20 mm"),
    ],
)
def test_a_mesh_of_other_coordinates_is_told(reference: DtuReference, vertices: np.ndarray, said: str):
    with pytest.raises(ConfigError) as caught:
        dtu_error(mesh_of(vertices), reference)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_area_that_no_object_on_the_table_has_is_refused():
    corner = 1e4 * torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]).double()
    with pytest.raises(ConfigError, match=r"the mesh has an area of 5e\+07 mm²"):
        grid_samples(Mesh(corner, torch.tensor([[0, 1, 2]])))
