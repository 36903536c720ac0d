"""Laws of the grids that know empty space."""

import math

import pytest
import torch

from models.rendering.occupancy import EMPTY, SOLID, SURFACE, FieldView, MovingAverage, SurfaceShell
from tests.models.small import ball
from utils.contraction import contract


def test_a_shell_holds_the_surface_and_calls_its_inside_solid():
    grid = SurfaceShell(SurfaceShell.Config(resolution=32), 1.0, "box")
    grid.refresh(0, FieldView(opacity=ball, sdf=ball, sharpness=1000.0), seed=0)
    torch.manual_seed(0)
    points = torch.rand(20000, 3) * 2 - 1
    state, sdf = grid.at(points), ball(points)
    assert (state[sdf.abs() < 1e-2] == SURFACE).all()
    assert (state[sdf < -0.2] == SOLID).all() and (state[sdf > 0.2] == EMPTY).all()
    assert (sdf[state == EMPTY] > 0).all() and (sdf[state == SOLID] < 0).all()


def test_a_shell_narrows_as_the_surface_sharpens():
    shares = []
    for sharpness in (20.0, 100.0, 1000.0):
        grid = SurfaceShell(SurfaceShell.Config(resolution=32), 1.0, "box")
        grid.refresh(0, FieldView(opacity=ball, sdf=ball, sharpness=sharpness), seed=0)
        shares.append(grid.share())
    assert shares[0] > shares[1] > shares[2] > 0


@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_solid_cells_are_deeper_than_light_comes_even_in_what_is_thin(axis):
    """A plate so thin that nothing in it is half a cell's diagonal deeper than the band, at the worst angle too."""
    sharpness, resolution = 100.0, 64
    band, half_diagonal = 5 / sharpness, SurfaceShell.SLACK * math.sqrt(3) / resolution
    normal = torch.nn.functional.normalize(torch.tensor(axis), dim=0)
    middle = 1 / resolution  # of a cell beside the origin
    plate = lambda points: ((points - middle) @ normal).abs() - (band + 0.95 * half_diagonal)  # noqa: E731
    grid = SurfaceShell(SurfaceShell.Config(resolution=resolution), 1.0, "box")
    grid.refresh(0, FieldView(opacity=plate, sdf=plate, sharpness=sharpness), seed=0)
    torch.manual_seed(0)
    points = torch.rand(200000, 3) * 2 - 1
    state, depth = grid.at(points), -plate(points)
    assert (depth[state == SOLID] > band).all()
    assert (state[depth > band + 0.9 * half_diagonal] == SOLID).float().mean() > 0.5


@pytest.mark.parametrize("sharpness", [20.0, 100.0, 1000.0])
def test_a_shell_asked_by_halves_is_the_shell_of_all_cells_for_a_fraction_of_the_questions(sharpness):
    grid, n_asked = SurfaceShell(SurfaceShell.Config(resolution=64), 1.0, "box"), 0

    def counted(points: torch.Tensor) -> torch.Tensor:
        nonlocal n_asked
        n_asked += len(points)
        return ball(points)

    grid.refresh(0, FieldView(opacity=ball, sdf=counted, sharpness=sharpness), seed=0)
    axis = (torch.arange(64) + 0.5) / 32 - 1
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    sdf = ball(torch.stack([x, y, z], dim=-1).view(-1, 3)).view_as(grid.cells)
    band, half_diagonal = min(5 / sharpness, 0.2), SurfaceShell.SLACK * math.sqrt(3) / 64
    is_near = (sdf < band + half_diagonal) & (sdf > -band - SurfaceShell.CORNER * half_diagonal)
    every = torch.where(is_near, SURFACE, torch.where(sdf < 0, SOLID, EMPTY))
    assert torch.equal(grid.cells.long(), every)
    assert n_asked < 0.4 * 64**3


@pytest.mark.parametrize("contraction", ["box", "sphere"])
def test_a_moving_average_finds_what_is_opaque(contraction):
    grid = MovingAverage(MovingAverage.Config(resolution=16), 1.0, contraction, threshold=0.01)
    inside = lambda points: (points.norm(dim=-1) < 0.6).float()  # noqa: E731
    grid.refresh(0, FieldView(opacity=inside), seed=0)
    first = grid.cells.clone()
    for step in range(1, 400):
        grid.refresh(step, FieldView(opacity=inside), seed=0)
    assert grid.cells.sum() >= first.sum() > 0
    if contraction == "box":
        # A cell is marked if it touches the ball: its share is near the ball's.
        assert grid.share() == pytest.approx(4 / 3 * math.pi * 0.6**3 / 8, rel=0.45)


def test_grids_are_equal_for_equal_seeds_whatever_else_drew_numbers():
    grids = [MovingAverage(MovingAverage.Config(resolution=8), 1.0, "box") for _ in range(2)]
    for grid in grids:
        torch.rand(3 if grid is grids[0] else 5)
        for step in range(0, 400, 16):
            grid.refresh(step, FieldView(opacity=lambda points: torch.relu(-ball(points))), seed=7)
    assert torch.equal(grids[0].opacity, grids[1].opacity)


def test_a_grid_knows_how_far_its_full_cells_are():
    grid = MovingAverage(MovingAverage.Config(resolution=8), 1.0, "box")
    cells = torch.zeros(8, 8, 8, dtype=torch.uint8)
    cells[6, 2, 5] = SURFACE  # z, y, x: x in [0.25, 0.5], y in [-0.5, -0.25], z in [0.5, 0.75]
    grid._fill(cells)
    torch.manual_seed(0)
    points = 2 * torch.rand(5000, 3) - 1
    distance = (points - torch.tensor([0.375, -0.375, 0.625])).abs().amax(dim=-1) - 0.125
    for reach in (0.0, 0.2, 0.25):
        near = grid.near(points, reach)
        assert near[distance <= reach].all()
        assert not near[distance > reach + 0.25].any()  # a cell is 0.25 wide


def test_a_contracted_grid_is_near_wherever_a_full_cell_is():
    grid = MovingAverage(MovingAverage.Config(resolution=32), 1.0, "sphere")
    grid._fill(torch.zeros(32, 32, 32, dtype=torch.uint8))
    torch.manual_seed(1)
    full, shift = 2 * torch.rand(300, 3) - 1, torch.rand(300, 3) - 0.5
    assert not grid.near(full, 0.1).any()
    for point, offset in zip(full, shift, strict=True):
        x, y, z = (contract(point[None], 1.0, "sphere")[0] * 32).long()
        grid.cells.zero_()
        grid.cells[z, y, x] = SURFACE
        near = (point + offset)[None]
        assert grid.near(near, offset.abs().max().item())
