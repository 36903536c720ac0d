"""Triangles of a zero level between the nodes of a grid (marching cubes, Lorensen and Cline 1987).

How a cell is cut depends on the signs at its eight corners alone. So a library is asked once, how it cuts each of the
256 patterns; the cells of a grid are then looked up in that table, all at once and only where the sign changes. A
vertex is named by the edge it lies on: cells agree on it without comparing coordinates, and its place is interpolated
once.

Corners of a cell are numbered x * 4 + y * 2 + z by their offset; bit i of a pattern tells whether corner i is inside.
An edge of the grid is named `3 * node + axis` after its lower node and its direction, where
`node = (x * resolution + y) * resolution + z`.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator

import numpy as np
import skimage.measure
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.bricks import BRICK, INSIDE, OUTSIDE, Bricks
from models.fields.isosurface import Method

CORNERS = torch.cartesian_prod(*[torch.arange(2)] * 3)
AT_ONCE = 2**12
"""Bricks whose cells are cut at once."""
PER_CALL = 2**20
"""Vertices that are interpolated at once."""


def march(bricks: Bricks, method: Method) -> tuple[Int[Tensor, "V"], Int[Tensor, "F 3"]]:
    """Edges of the grid that the surface crosses, ascending, and triangles between them, wound outward."""
    table, edges = _table(method), _edges(bricks.resolution)
    crossed, faces = [], []
    for case, node in _mixed_cells(bricks):
        triangles = table[case.long()]  # [C, 5, 3]
        name = (3 * node[:, None, None] + edges[triangles.clamp(min=0)])[triangles[..., 0] >= 0]
        # Twice: first among neighbours, whose many faces share few edges, then among all.
        crossed.append(_distinct(name))
        faces.append(torch.searchsorted(crossed[-1], name, out_int32=True))
    edge = _distinct(torch.cat(crossed))
    result, start = torch.empty(sum(map(len, faces)), 3, dtype=torch.int64), 0
    for names, local in zip(crossed, faces, strict=True):
        result[start : start + len(local)] = torch.searchsorted(edge, names)[local]
        start += len(local)
    return edge, result


def crossings(bricks: Bricks, edge: Int[Tensor, "V"]) -> Float[Tensor, "V 3"]:
    """World points where the level is zero on edges, interpolated linearly between their ends."""
    points = torch.empty(len(edge), 3)
    size = bricks.resolution
    for start in range(0, len(edge), PER_CALL):
        part = edge[start : start + PER_CALL]
        node, axis = part // 3, part % 3
        first = torch.stack([node // size**2, node // size % size, node % size], dim=-1)
        along = torch.nn.functional.one_hot(axis, 3)
        a, b = bricks.at(first).double(), bricks.at(first + along).double()
        place = first + along * (a / (a - b))[:, None]
        points[start : start + PER_CALL] = (bricks.lower.double() + bricks.step.double() * place).float()
    return points


def _mixed_cells(bricks: Bricks) -> Iterator[tuple[Int[Tensor, "C"], Int[Tensor, "C"]]]:
    """Pattern and lower node of every cell with both signs, some thousands of bricks at a time."""
    inside = torch.zeros(len(bricks) + 2, BRICK, BRICK, BRICK, dtype=torch.bool)
    inside[: len(bricks)] = bricks.values < 0
    # Counted from the end, as these two rows are.
    inside[INSIDE], inside[OUTSIDE] = True, False

    for owner in _owners(bricks).split(AT_ONCE):
        signs = _with_upper_neighbours(bricks.row, inside, owner)
        # Two signs along z, four with those along y, eight with those along x.
        case = signs[..., :-1] | signs[..., 1:] << 1
        case = case[:, :, :-1] | case[:, :, 1:] << 2
        case = case[:, :-1] | case[:, 1:] << 4
        found = ((case != 0) & (case != 255)).nonzero()  # [C, 4] brick and place in it
        node = owner[found[:, 0]] * BRICK + found[:, 1:]
        is_cell = (node < bricks.resolution - 1).all(dim=-1)
        x, y, z = node[is_cell].unbind(-1)
        yield case[found[is_cell].unbind(-1)], (x * bricks.resolution + y) * bricks.resolution + z


def _owners(bricks: Bricks) -> Int[Tensor, "B 3"]:
    """Bricks with a node of a mixed cell's that is its lower one: those that are kept and their lower neighbours."""
    kept = bricks.row >= 0
    for axis in range(3):
        n = bricks.per_axis - 1
        kept.narrow(axis, 0, n).logical_or_(kept.narrow(axis, 1, n).clone())
    return kept.nonzero()


def _with_upper_neighbours(
    row: Int[Tensor, "P P P"], inside: Bool[Tensor, "S 8 8 8"], owner: Int[Tensor, "B 3"]
) -> Tensor:
    """[B, 9, 9, 9] uint8 signs of bricks and of the first nodes of the bricks that follow."""
    signs = torch.empty(len(owner), *[BRICK + 1] * 3, dtype=torch.uint8)
    for offset in CORNERS:
        # Where no brick follows, no cell does: the values do not matter.
        near = (owner + offset).clamp(max=len(row) - 1)
        into, of = [slice(None)], [slice(None)]
        for follows in offset.tolist():
            into.append(slice(BRICK, None) if follows else slice(0, BRICK))
            of.append(slice(0, 1) if follows else slice(None))
        signs[tuple(into)] = inside[tuple(of)][row[near.unbind(-1)].long()].byte()
    return signs


def _edges(resolution: int) -> Int[Tensor, "24"]:
    """What the edges of a cell add to the name of its first: entry `3 * corner + axis`."""
    stride = torch.tensor([resolution**2, resolution, 1])
    return (3 * (CORNERS @ stride)[:, None] + torch.arange(3)).flatten()


def _distinct(names: Int[Tensor, "*N"]) -> Int[Tensor, "M"]:
    """The names in ascending order, each once; NumPy's sort of integers is several times faster than any unique."""
    ordered = torch.from_numpy(np.sort(names.flatten().numpy()))
    return ordered[torch.nn.functional.pad(ordered.diff() > 0, (1, 0), value=True)] if len(names) else ordered


@functools.cache
def _table(method: Method) -> Int[Tensor, "256 5 3"]:
    """The triangles of each pattern as edges `3 * corner + axis`, wound outward; rows of -1 follow the last one."""
    cut = _library(method)
    table = torch.full((256, 5, 3), -1)
    for pattern in range(1, 255):
        is_inside = torch.tensor([bool(pattern >> i & 1) for i in range(8)]).view(2, 2, 2)
        # The surface halves edges of unit length, so the one odd coordinate of twice a vertex is its edge's axis.
        vertices, faces = cut(torch.where(is_inside, -1.0, 1.0))
        twice = torch.from_numpy((2 * vertices).round().astype(np.int64))
        axis = (twice % 2).argmax(dim=-1)
        corner = (twice // 2) @ torch.tensor([4, 2, 1])
        table[pattern, : len(faces)] = (3 * corner + axis)[torch.from_numpy(faces.astype(np.int64))]
    # The face that cuts off corner 0 looks away from it, if its edges run along x, y, z in turn.
    starts = table[1, 0].argmin()
    runs_outward = table[1, 0].roll(-int(starts)).tolist() == [0, 1, 2]
    return table if runs_outward else table.flip(-1)


def _library(method: Method) -> Callable[[Float[Tensor, "2 2 2"]], tuple[np.ndarray, np.ndarray]]:
    """What cuts a volume along zero: [V, 3] vertices in nodes, [F, 3] faces of any winding."""
    if method == "mc-torch":
        import torchmcubes

        def cut(volume: Tensor) -> tuple[np.ndarray, np.ndarray]:
            vertices, faces = torchmcubes.marching_cubes(volume, 0.0)
            return vertices.flip(dims=[1]).numpy(), faces.numpy()  # it calls the last axis x

        return cut
    if method == "mc" and importlib.util.find_spec("mcubes"):
        import mcubes  # it has no wheels for the newest Pythons

        return lambda volume: mcubes.marching_cubes(volume.numpy(), 0.0)
    # Its other variant resolves ambiguous cells by values, which a table cannot.
    return lambda volume: skimage.measure.marching_cubes(volume.numpy(), 0.0, method="lorensen")[:2]
