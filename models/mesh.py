"""A field's zero level as a triangle mesh.

A *level* maps world points [N, 3] to [N] numbers that are negative inside the surface: a signed distance, or
`threshold - density`. Grids have `resolution` nodes per axis, so `resolution - 1` cells.

Extraction has two passes: a coarse one over the whole cube finds the object, a fine one resolves the box around
it. A distance-like level makes the fine pass sparse: where the value at the centre of a brick of nodes is larger
than the field can change within the brick, no surface passes through it, and the brick is not evaluated.

Marching cubes: Lorensen and Cline 1987; scikit-image's variant resolves ambiguous cells (Lewiner et al. 2003).
"""

import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import scipy.sparse
import skimage.measure
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.types import Mesh

Level = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]
Method = Literal["mc", "skimage"]

COARSE = 128
"""Nodes per axis of the pass that finds the object."""
BRICK = 8
"""Nodes per axis of the blocks that a sparse pass evaluates or skips."""
SAFETY = 1.2
"""A field may change this much faster than the fastest change seen on the coarse grid."""
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
    progress: Callable[[float], None] = lambda share: None,
) -> Mesh:
    """Mesh of the zero level within the cube of half-width `radius` around the origin.

    Args:
        level: world points [N, 3] -> [N], negative inside; called without gradients, on CPU tensors.
        radius: world units.
        resolution: nodes per axis of the fine grid, at least 2; it takes 4 bytes per node.
        chunk: most points per call of `level` (rounded up to one brick).
        method: see `extract`.
        is_distance: whether the level changes at a bounded rate, as a signed distance does. Then the fine pass
            skips space that the largest rate on the coarse grid rules out.
        progress: told the finished share of the fine pass, in [0, 1].

    Raises:
        EmptySurface: the level does not change sign.
    """
    cube = torch.tensor([[-radius] * 3, [radius] * 3])
    coarse = _sample(level, cube, min(resolution, COARSE), chunk)

    slope = _steepest(coarse, cube) if is_distance else None
    # A part thinner than a coarse cell can be missed everywhere: then the fine pass has to look everywhere.
    box = _around(_march(coarse, cube, method)[0], cube) if _has_both_signs(coarse) else cube
    return extract(level, box, resolution, chunk, method, slope, progress)


def extract(
    level: Level,
    box: Float[Tensor, "2 3"],
    resolution: int,
    chunk: int = 2**21,
    method: Method = "mc",
    slope: float | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Mesh:
    """Mesh of the zero level within a box; NaN values count as outside, with a warning.

    Args:
        level: world points [N, 3] -> [N], negative inside; called without gradients, on CPU tensors.
        box: lower and upper corner, world units; cells are as anisotropic as the box.
        resolution: nodes per axis, at least 2.
        chunk: most points per call of `level` (rounded up to one brick).
        method: "skimage", or "mc": PyMCubes where it is installed, else scikit-image. The two agree but for cells
            with an ambiguous sign pattern.
        slope: largest rate of change of the level, per world unit; where given, bricks of nodes whose centre is
            too far from zero for it are not evaluated.
        progress: told the finished share, in [0, 1].

    Returns:
        The mesh with unit, outward vertex normals.

    Raises:
        EmptySurface: the level does not change sign.
        ValueError: `resolution` or `method` is none of those above.
    """
    if resolution < 2:
        raise ValueError(f"isosurface resolution is {resolution}; a grid needs at least 2 nodes per axis")
    volume = _sample(level, box, resolution, chunk, slope, progress)

    if not _has_both_signs(volume):
        raise EmptySurface(_why_empty(volume, box))
    n_nan = int(volume.isnan().count_nonzero())
    if n_nan:
        warnings.warn(f"{n_nan} of {volume.numel()} values of the field are NaN; they count as outside", stacklevel=2)
    vertices, faces = _march(volume, box, method)
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def vertex_normals(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V 3"]:
    """[V, 3] unit normals, the mean of the adjacent faces' weighted by their area; 0 where no face is adjacent."""
    corner = vertices[faces]  # [F, 3, 3]
    twice_area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = torch.zeros_like(vertices)
    for i in range(3):
        total.index_add_(0, faces[:, i], twice_area)
    # The smallest faces have an area of 1e-12 square units and less: normalize's default floor is too high for them.
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-30)


def keep_components(mesh: Mesh, n: int) -> tuple[Mesh, int]:
    """The `n` connected parts with the largest area (all if `n` is 0), and how many parts were dropped."""
    count, part = _components(mesh)
    if n == 0 or count <= n:
        return mesh, 0
    corner = mesh.vertices[mesh.faces].double()
    area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=-1)
    largest = torch.bincount(part, area, minlength=count).topk(n).indices
    return _select(mesh, torch.isin(part, largest)), count - n


def report(mesh: Mesh) -> dict[str, int | bool]:
    """What a reader wants to know of a mesh: its size, its parts, and whether it bounds a solid.

    `euler` is V - E + F: 2 for each closed part, less 2 for each handle.
    """
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]).sort(dim=-1).values
    row = edges[:, 0] * len(mesh.vertices) + edges[:, 1]
    per_edge = row.unique(return_counts=True)[1]
    return {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "components": _components(mesh)[0],
        "is_watertight": bool((per_edge == 2).all()),
        "euler": len(mesh.vertices) - len(per_edge) + len(mesh.faces),
    }


def _sample(
    level: Level,
    box: Float[Tensor, "2 3"],
    resolution: int,
    chunk: int,
    slope: float | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Float[Tensor, "X Y Z"]:
    """The level at the nodes of a grid; skipped bricks hold the value of their centre, which has the right sign."""
    lower, step = box[0], (box[1] - box[0]) / (resolution - 1)
    per_axis = math.ceil(resolution / BRICK)
    bricks = _lattice(per_axis)

    if slope is None:
        volume = torch.empty(resolution, resolution, resolution)
    else:
        centre = _evaluate(level, lower + step * (bricks * BRICK + (BRICK - 1) / 2), chunk)
        volume = centre.view(per_axis, per_axis, per_axis)
        for axis in range(3):
            volume = volume.repeat_interleave(BRICK, axis).narrow(axis, 0, resolution)
        volume = volume.contiguous()
        # Half a diagonal reaches the outer nodes of the brick's neighbours, so that a cell across two bricks is safe.
        reach = SAFETY * slope * float(step.norm()) * (BRICK + 1) / 2
        bricks = bricks[~(centre.abs() > reach)]  # [B, 3]; a NaN is no proof, so it stays

    offsets = _lattice(BRICK)
    per_call = max(1, chunk // BRICK**3)
    for start in range(0, len(bricks), per_call):
        nodes = (bricks[start : start + per_call, None] * BRICK + offsets).view(-1, 3)
        nodes = nodes[(nodes < resolution).all(dim=-1)]
        volume[nodes.unbind(-1)] = _evaluate(level, lower + step * nodes, len(nodes))
        progress(min(1.0, (start + per_call) / len(bricks)))
    return volume


@torch.no_grad()
def _evaluate(level: Level, points: Float[Tensor, "N 3"], chunk: int) -> Float[Tensor, "N"]:
    return torch.cat([level(part).float().cpu() for part in points.split(max(1, chunk))])


def _lattice(n: int) -> Int[Tensor, "n3 3"]:
    axis = torch.arange(n)
    return torch.cartesian_prod(axis, axis, axis)


def _steepest(volume: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"]) -> float:
    """Largest gradient between neighbouring nodes, and at least the 1 of a distance; infinite if any is unknown."""
    step = (box[1] - box[0]) / (len(volume) - 1)
    square = sum(
        (volume.diff(dim=i) / step[i]).square()[tuple(slice(len(volume) - 1) for _ in "xyz")] for i in range(3)
    )
    steepest = float(square.max().sqrt())  # type: ignore[union-attr]
    return math.inf if math.isnan(steepest) else max(1.0, steepest)


def _around(vertices: Float[Tensor, "V 3"], cube: Float[Tensor, "2 3"]) -> Float[Tensor, "2 3"]:
    lower, upper = vertices.amin(dim=0), vertices.amax(dim=0)
    # An object that is flat at the coarse resolution still gets a coarse cell of space to either side.
    margin = (MARGIN * (upper - lower)).clamp(min=float(cube[1, 0] - cube[0, 0]) / COARSE)
    return torch.stack([lower - margin, upper + margin]).clamp(cube[0], cube[1])


def _has_both_signs(volume: Float[Tensor, "X Y Z"]) -> bool:
    """Whether a surface separates some nodes from others (a grid is connected, so two signs are enough)."""
    return bool((volume < 0).any()) and bool((volume >= 0).any())


def _why_empty(volume: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"]) -> str:
    corners = " to ".join(str([round(x, 3) for x in corner]) for corner in box.tolist())
    values = volume[~volume.isnan()]
    n_nan = volume.numel() - len(values)
    if len(values) == 0:
        return f"no surface in the box {corners}: all {n_nan} values of the field are NaN; train again at a lower rate"
    low, high = float(values.min()), float(values.max())
    side, change, gap = (
        ("outside", "lower a density's threshold or raise a distance's", low)
        if low >= 0
        else ("inside", "raise a density's threshold or lower a distance's", -high)
    )
    return (
        f"no surface in the box {corners}: all is {side}, the field (negative inside) lies in [{low:.4g}, {high:.4g}], "
        f"with {n_nan} NaN values; {change} (model.geometry.isosurface.threshold) by more than {gap:.3g}, "
        "train for more steps, or check that model.radius holds the object"
    )


def _march(
    volume: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"], method: Method
) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    if method not in ("mc", "skimage"):
        raise ValueError(f"isosurface method is '{method}'; expected mc or skimage")
    if not volume.isfinite().all():
        largest = float(volume.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max())
        volume = volume.nan_to_num(nan=largest, posinf=largest, neginf=-largest)
    if method == "mc" and importlib.util.find_spec("mcubes"):
        import mcubes  # it has no wheels for the newest Pythons

        nodes, faces = mcubes.marching_cubes(volume.numpy(), 0.0)
    else:
        nodes, faces, _, _ = skimage.measure.marching_cubes(volume.numpy(), 0.0, gradient_direction="ascent")
    step = (box[1] - box[0]).double() / (len(volume) - 1)
    vertices = box[0].double() + step * torch.from_numpy(nodes.astype(np.float64))
    # Both libraries wind faces for fields that are positive inside.
    return vertices.float(), torch.from_numpy(faces.astype(np.int64)).flip(dims=[1])


def _components(mesh: Mesh) -> tuple[int, Int[Tensor, "F"]]:
    """How many connected parts there are, and which of them each face belongs to."""
    first, second, third = mesh.faces.numpy().T
    pairs = (np.concatenate([first, second]), np.concatenate([second, third]))
    n = len(mesh.vertices)
    graph = scipy.sparse.coo_matrix((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(n, n))
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    present, part = np.unique(label[first], return_inverse=True)  # vertices without faces are no part
    return len(present), torch.from_numpy(part)


def _select(mesh: Mesh, keep: Bool[Tensor, "F"]) -> Mesh:
    """The faces marked in `keep`, with the vertices they use."""
    used, faces = mesh.faces[keep].unique(return_inverse=True)
    of_vertices = {
        name: value[used]
        for name in ("vertices", "normals", "colors", "uv")
        if (value := getattr(mesh, name)) is not None
    }
    return replace(mesh, faces=faces, **of_vertices)
