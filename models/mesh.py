"""A field's zero level as a triangle mesh.

Extraction has two passes: a coarse one over the whole cube finds the object, a fine one resolves the box around
it. The fine pass looks only into bricks of the grid that can hold a surface, and follows the surface from there (see
`models.bricks`): into those where a distance is small for the rate at which it changes thereabouts, those that the
caller does not rule out, and those where the coarse pass has seen a surface.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.bricks import Bricks, Level
from models.fields.isosurface import Method
from models.marching_cubes import crossings, march
from utils.types import Mesh

MayHold = Callable[[Float[Tensor, "N 3"], float], Bool[Tensor, "N"]]
"""World points [N, 3] and a distance along each axis to whether a surface can be that near, [N]."""

COARSE = 128
"""Nodes per axis of the pass that finds the object."""
SAFETY = 1.2
"""A distance may change this much faster within a brick than it does between the centres of bricks around it."""
PER_CALL = 2**20
"""Faces that are computed with at once: their corners take more memory than they do."""
MARGIN = 0.1
"""Share of the object's extent that the fine box adds on either side."""


class EmptySurface(ValueError):
    """A level that is nowhere zero, told in one line: its range, its NaN values, what to try."""


def extract_surface(
    level: Level,
    radius: float,
    resolution: int,
    chunk: int = 2**21,
    method: Method = "mc",
    is_distance: bool = False,
    may_hold: MayHold | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Mesh:
    """Mesh of the zero level within the cube of half-width `radius` around the origin.

    Args:
        level: world points [N, 3] -> [N], negative inside; called without gradients, on CPU tensors.
        radius: world units.
        resolution: nodes per axis of the fine grid, at least 2.
        chunk: most points per call of `level` (rounded up to one brick).
        method: see `extract`.
        is_distance, may_hold: see `extract`.
        progress: told the finished share of the fine pass, in [0, 1].

    Raises:
        EmptySurface: the level does not change sign.
    """
    cube = torch.tensor([[-radius] * 3, [radius] * 3])
    coarse = Bricks(level, cube, min(resolution, COARSE), chunk)
    coarse.ask(coarse.all())
    coarse.follow()
    seen = crossings(coarse, march(coarse, method)[0])
    # A part thinner than a coarse cell can be missed everywhere: then the fine pass looks at the whole cube.
    box = _around(seen, cube) if len(seen) else cube
    return extract(level, box, resolution, chunk, method, is_distance, may_hold, seen, progress)


def extract(
    level: Level,
    box: Float[Tensor, "2 3"],
    resolution: int,
    chunk: int = 2**21,
    method: Method = "mc",
    is_distance: bool = False,
    may_hold: MayHold | None = None,
    seen: Float[Tensor, "N 3"] | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Mesh:
    """Mesh of the zero level within a box; NaN values count as outside, with a warning.

    Args:
        level: world points [N, 3] -> [N], negative inside; called without gradients, on CPU tensors.
        box: lower and upper corner, world units; cells are as anisotropic as the box.
        resolution: nodes per axis, at least 2.
        chunk: most points per call of `level` (rounded up to one brick).
        method: whose triangles: "mc" those of PyMCubes, of scikit-image where that is not installed; "mc-torch" those
            of torchmcubes. Vertices are the same, triangles differ where the signs of a cell leave a choice.
        is_distance: whether the level is about a signed distance, whose value at the centre of a brick tells how far
            the surface is.
        may_hold: rules out bricks without a surface. With neither, every brick is looked into.
        seen: world points where a surface is known to be.
        progress: told the finished share, in [0, 1].

    Returns:
        The mesh with unit, outward vertex normals.

    Raises:
        EmptySurface: the level does not change sign.
        ValueError: `resolution` is too small.
    """
    if resolution < 2:
        raise ValueError(f"isosurface resolution is {resolution}; a grid needs at least 2 nodes per axis")
    bricks = Bricks(level, box, resolution, chunk)
    bricks.ask(_candidates(bricks, is_distance, may_hold, seen), progress=progress)
    bricks.follow()

    if not len(bricks):
        raise EmptySurface(_why_empty(bricks))
    if bricks.n_nan:
        told = f"{bricks.n_nan} of {bricks.n_asked} values of the field are NaN; they count as outside"
        warnings.warn(told, stacklevel=2)
    edge, faces = march(bricks, method)
    vertices = crossings(bricks, edge)
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """[V, 3] unit normals, the mean of the adjacent faces' weighted by their area; 0 where no face is adjacent."""
    total = torch.zeros_like(vertices)
    for part in faces.split(PER_CALL):
        twice_area = _twice_areas(vertices[part])
        for i in range(3):
            total.index_add_(0, part[:, i], twice_area)
    # The smallest faces have an area of 1e-12 square units and less: normalize's default floor is too high for them.
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-30)


def face_areas(mesh: Mesh) -> Float[Tensor, "F"]:
    """[F] float64, square world units."""
    parts = [_twice_areas(mesh.vertices[part].double()).norm(dim=-1) / 2 for part in mesh.faces.split(PER_CALL)]
    return torch.cat(parts)


def components(mesh: Mesh) -> tuple[int, Int[Tensor, "F"]]:
    """How many connected parts there are, and which of them each face belongs to."""
    n, corner = len(mesh.vertices), mesh.faces.int().numpy()
    pairs = (corner[:, :2].ravel(), corner[:, 1:].ravel())  # with the third side, no more would be connected
    graph = scipy.sparse.coo_matrix((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(n, n))
    n_labels, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    of_face = torch.from_numpy(label)[mesh.faces[:, 0]].long()
    # Vertices without faces are no part.
    is_part = torch.bincount(of_face, minlength=n_labels) > 0
    return int(is_part.count_nonzero()), (is_part.cumsum(0) - 1)[of_face]


def report(mesh: Mesh) -> dict[str, int | bool]:
    """What a reader wants to know of a mesh: its size, its parts, and whether it bounds a solid.

    `euler` is V - E + F: 2 for each closed part, less 2 for each handle.
    """
    a, b, c = mesh.faces.unbind(1)
    # One side of all faces after the other: intermediate arrays of all sides at once would be three times as large.
    sides = (a, b), (b, c), (c, a)
    edge = torch.cat([torch.minimum(*ends) * len(mesh.vertices) + torch.maximum(*ends) for ends in sides]).numpy()
    edge.sort()
    begins = np.concatenate([[True], edge[1:] != edge[:-1]])
    n_edges = int(np.count_nonzero(begins))
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "components": components(mesh)[0],
        # Each edge stands twice in a row, as there are half as many edges as ends of faces.
        "is_watertight": 2 * n_edges == len(edge) and bool(begins[::2].all()),
        "euler": len(mesh.vertices) - n_edges + len(mesh.faces),
    }


def _twice_areas(corner: Float[Tensor, "F 3 3"]) -> Float[Tensor, "F 3"]:
    """Normals of triangles, twice as long as their areas are large."""
    return torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])


def _candidates(
    bricks: Bricks, is_distance: bool, may_hold: MayHold | None, seen: Float[Tensor, "N 3"] | None
) -> Int[Tensor, "B 3"]:
    """Bricks that can hold a surface; of the others the sign is guessed."""
    if not is_distance and may_hold is None:
        return bricks.all()
    centres = bricks.centres()
    value = bricks.evaluate(centres)
    bricks.guess(value)
    wanted = torch.ones(len(value), dtype=torch.bool)
    if is_distance:
        wanted &= value.abs() <= SAFETY * _slope(value, centres, bricks.per_axis) * float(bricks.reach().norm())
    if may_hold is not None:
        wanted &= may_hold(centres, float(bricks.reach().max()))
    wanted = wanted.view(bricks.row.shape)
    if seen is not None:
        wanted[bricks.holding(seen).unbind(-1)] = True
    return wanted.nonzero()


def _slope(value: Float[Tensor, "B"], centres: Float[Tensor, "B 3"], n: int) -> Float[Tensor, "B"]:
    """Rate at which a distance changes around the centres of n³ bricks, at least the 1 that it should be."""
    if n == 1:
        return torch.full_like(value, math.inf)
    value, centres = value.view(n, n, n), centres.view(n, n, n, 3)
    square = torch.zeros_like(value)
    for axis in range(3):
        rate = (value.diff(dim=axis) / centres[..., axis].diff(dim=axis)).abs()
        # Of the two differences that a centre takes part in, the larger one.
        edge = torch.zeros_like(rate.narrow(axis, 0, 1))
        square += torch.maximum(torch.cat([edge, rate], dim=axis), torch.cat([rate, edge], dim=axis)).square()
    return torch.nn.functional.max_pool3d(square[None], 3, 1, 1).sqrt().clamp(min=1).flatten()


def _around(points: Float[Tensor, "N 3"], cube: Float[Tensor, "2 3"]) -> Float[Tensor, "2 3"]:
    lower, upper = points.amin(dim=0), points.amax(dim=0)
    # An object that is flat at the coarse resolution still gets a coarse cell of space to either side.
    margin = (MARGIN * (upper - lower)).clamp(min=float(cube[1, 0] - cube[0, 0]) / COARSE)
    return torch.stack([lower - margin, upper + margin]).clamp(cube[0], cube[1])


def _why_empty(bricks: Bricks) -> str:
    corners = " to ".join(str([round(x, 3) for x in corner]) for corner in bricks.box.tolist())
    if bricks.n_nan == bricks.n_asked:
        return f"no surface in the box {corners}: all values of the field are NaN; train again at a lower rate"
    low, high = bricks.low, bricks.high
    side, change, gap = (
        ("outside", "lower a density's threshold or raise a distance's", low)
        if low >= 0
        else ("inside", "raise a density's threshold or lower a distance's", -high)
    )
    return (
        f"no surface in the box {corners}: all is {side}, the field (negative inside) lies in [{low:.4g}, {high:.4g}], "
        f"with {bricks.n_nan} NaN values; {change} (model.geometry.isosurface.threshold) by more than {gap:.3g}, "
        "train for more steps, or check that model.radius holds the object"
    )
