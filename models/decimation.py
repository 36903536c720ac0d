"""Meshes with fewer faces, by quadric edge collapse (Garland and Heckbert 1997).

The library needs some 460 bytes a face. So a large mesh is first cut into blocks, which are thinned one after the other
with their borders kept, and put together again; what is left of it is then decimated as one, the borders too.
"""

from collections.abc import Callable, Iterator

import fast_simplification
import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from models.mesh import vertex_normals
from utils.types import Mesh

FACES_PER_BLOCK = 2**18
"""Mean number of faces that are thinned as one."""
REMAINDER = 4
"""Faces that blocks leave for each that is wanted, at least: the last pass chooses freely among them."""
AT_ONCE = 2**19
"""Faces that are decimated as one, unless too few would be left to choose among."""


def decimate(mesh: Mesh, n_faces: int, progress: Callable[[float], None] = lambda share: None) -> Mesh:
    """The mesh with at most about `n_faces` faces.

    Args:
        mesh: of any size; memory follows `n_faces`, and from some hundred thousand on nothing else.
        n_faces: at least 4.
        progress: told the finished share, in [0, 1].

    Returns:
        Vertices, faces and normals only; `mesh` itself where it is small enough.
    """
    if len(mesh.faces) <= n_faces:
        return mesh
    place, faces = mesh.vertices.double().numpy(), mesh.faces
    remainder = max(AT_ONCE, REMAINDER * n_faces)
    if len(faces) > remainder:
        place, faces = _thinned(mesh, remainder / len(faces), progress)
    place, faces = _simplified(place, faces, n_faces)
    progress(1.0)
    vertices = torch.from_numpy(place).float()
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def blocks(mesh: Mesh, n_faces: int) -> Iterator[Int[Tensor, "B 3"]]:
    """The faces, sorted into the blocks of a grid over the bounding box, of which each has about `n_faces`."""
    centre = mesh.vertices[mesh.faces].mean(dim=1)
    lower, upper = centre.amin(dim=0), centre.amax(dim=0)
    per_axis = max(1, round((len(mesh.faces) / n_faces) ** (1 / 3) + 0.5))
    place = ((centre - lower) / (upper - lower).clamp(min=1e-12) * per_axis).long().clamp(max=per_axis - 1)
    block = (place[:, 0] * per_axis + place[:, 1]) * per_axis + place[:, 2]
    for label in block.unique():
        yield mesh.faces[block == label]


def _thinned(
    mesh: Mesh, share: float, progress: Callable[[float], None]
) -> tuple[Float64[np.ndarray, "V 3"], Int[Tensor, "F 3"]]:
    """Places and faces of the mesh with about this share of its faces."""
    vertices, faces, n, done = [], [], 0, 0
    for block in blocks(mesh, FACES_PER_BLOCK):
        used, local = block.unique(return_inverse=True)
        place, corner = _simplified(mesh.vertices[used].double().numpy(), local, max(4, int(share * len(block))), True)
        vertices.append(place)
        faces.append(corner + n)
        n, done = n + len(place), done + len(block)
        progress(0.8 * done / len(mesh.faces))
    return _welded(np.concatenate(vertices), torch.cat(faces))


def _simplified(
    place: Float64[np.ndarray, "V 3"], faces: Int[Tensor, "F 3"], n_faces: int, keeps_border: bool = False
) -> tuple[Float64[np.ndarray, "W 3"], Int[Tensor, "G 3"]]:
    corner = faces.int().numpy()
    simple = fast_simplification.simplify(place, corner, target_count=n_faces, preserve_border=keeps_border)
    return simple[0], torch.from_numpy(simple[1].astype(np.int64))


def _welded(
    vertices: Float64[np.ndarray, "V 3"], faces: Int[Tensor, "F 3"]
) -> tuple[Float64[np.ndarray, "W 3"], Int[Tensor, "G 3"]]:
    """The same with each place once: borders have not moved, so what blocks share has the very same coordinates."""
    order = np.lexsort(vertices.T)
    ordered = vertices[order]
    is_new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    row = np.empty(len(order), dtype=np.int64)
    row[order] = is_new.cumsum() - 1
    corner = torch.from_numpy(row)[faces]
    return ordered[is_new], corner[(corner != corner.roll(1, dims=1)).all(dim=1)]
