"""A mesh's colours as an image: decimate, unwrap, bake.

Texture coordinates have their origin at the lower left, images their row 0 at the top: the texel in row `r` and
column `c` of a square of `size` texels has its centre at u = (c + 1/2) / size, v = 1 - (r + 1/2) / size.

Charts are grown by xatlas, whose time rises much faster than the number of faces of a piece; unwrapping block by
block cuts seams along the blocks' borders and takes a tenth of the time.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import fast_simplification
import numpy as np
import scipy.ndimage
import torch
import xatlas
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.mesh import vertex_normals
from utils.rasterization import fragments
from utils.types import Mesh

FACES_PER_BLOCK = 4000
"""Mean number of faces that xatlas unwraps at once."""
PADDING = 4
"""Texels between charts, so that filtering and mipmaps do not mix neighbours."""
BAND = 2**21
"""Texels of a band of rows."""
REACH = 64
"""Texels outside of the charts."""


def decimate(mesh: Mesh, n_faces: int) -> Mesh:
    """The mesh with at most about `n_faces` faces, by quadric edge collapse (Garland and Heckbert 1997).

    Returns:
        Vertices, faces and normals only; `mesh` itself where it is small enough.
    """
    if len(mesh.faces) <= n_faces:
        return mesh
    simple = fast_simplification.simplify(
        mesh.vertices.numpy(), mesh.faces.numpy().astype(np.int32), target_count=n_faces
    )
    vertices, faces = torch.from_numpy(simple[0]).float(), torch.from_numpy(simple[1].astype(np.int64))
    return Mesh(vertices, faces, vertex_normals(vertices, faces))


def unwrap(mesh: Mesh, size: int = 2048) -> Mesh:
    """The mesh with texture coordinates; vertices on seams are repeated, once per chart.

    Args:
        mesh: with or without normals; missing ones are computed before the seams are cut.
        size: side of the texture that will be baked, in texels; padding between charts follows from it.

    Returns:
        Vertices, faces, normals, colours if any, and uv in [0, 1]. Faces are in another order.
    """
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    atlas, rows = xatlas.Atlas(), []
    for faces in _blocks(mesh):
        used, local = faces.unique(return_inverse=True)
        atlas.add_mesh(mesh.vertices[used].numpy(), local.numpy().astype(np.uint32))
        rows.append(used)

    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, PADDING, True
    atlas.generate(pack_options=packing)
    if atlas.atlas_count != 1:
        raise ValueError(f"unwrapping gave {atlas.atlas_count} atlases for a texture of {size} texels; raise its size")

    source, faces, uv, n = [], [], [], 0
    for i, used in enumerate(rows):
        origin, local, coordinates = atlas[i]
        source.append(used[torch.from_numpy(origin.astype(np.int64))])
        faces.append(torch.from_numpy(local.astype(np.int64)) + n)
        uv.append(torch.from_numpy(coordinates))
        n += len(origin)
    row = torch.cat(source)
    colors = None if mesh.colors is None else mesh.colors[row]
    return Mesh(mesh.vertices[row], torch.cat(faces), normals[row], colors, torch.cat(uv).float())


def bake(
    mesh: Mesh,
    color: Callable[[Float[Tensor, "N 3"], Float[Tensor, "N 3"]], Float[Tensor, "N 3"]],
    size: int = 2048,
    chunk: int = 2**21,
    progress: Callable[[float], None] = lambda share: None,
) -> Mesh:
    """The mesh with a texture: the colour of the surface at the centre of each texel.

    Texels outside all charts take the colour of the nearest one inside, so that no filter bleeds over a seam.

    Args:
        mesh: with uv and normals, as from `unwrap`.
        color: world points and unit normals, [N, 3] each, on the CPU -> [N, 3] colours in [0, 1].
        size: side of the square texture, in texels.
        chunk: most points per call of `color`.
        progress: told the finished share, in [0, 1].

    Raises:
        ValueError: the mesh has no uv or no normals.
    """
    if mesh.uv is None or mesh.normals is None:
        raise ValueError("a mesh without texture coordinates and normals cannot be baked; unwrap it first")
    image = torch.zeros(size * size, 3, dtype=torch.uint8)
    is_inside = torch.zeros(size * size, dtype=torch.bool)
    for part in fragments(_texels(mesh.uv, size)[mesh.faces], size, size):
        for start in range(0, len(part), chunk):
            piece = part[start : start + chunk]
            point, normal = (piece.interpolate(value, mesh.faces) for value in (mesh.vertices, mesh.normals))
            with torch.no_grad():
                shade = color(point, torch.nn.functional.normalize(normal, dim=-1))
            image[piece.pixel] = (shade.clamp(0, 1) * 255).round().to(torch.uint8)
            is_inside[piece.pixel] = True
            progress(int(piece.pixel[-1]) / len(image))
    _fill(image.view(size, size, 3), is_inside.view(size, size))
    return replace(mesh, texture=image.view(size, size, 3))


def _texels(uv: Float[Tensor, "V 2"], size: int) -> Float[Tensor, "V 2"]:
    """Places in the image of a texture, in texels from its upper left corner."""
    return size * torch.stack([uv[:, 0], 1 - uv[:, 1]], dim=-1)


def _blocks(mesh: Mesh) -> Iterator[Int[Tensor, "B 3"]]:
    """The faces, sorted into the blocks of a grid over the bounding box."""
    centre = mesh.vertices[mesh.faces].mean(dim=1)
    lower, upper = centre.amin(dim=0), centre.amax(dim=0)
    per_axis = max(1, round((len(mesh.faces) / FACES_PER_BLOCK) ** (1 / 3) + 0.5))
    place = ((centre - lower) / (upper - lower).clamp(min=1e-12) * per_axis).long().clamp(max=per_axis - 1)
    block = (place[:, 0] * per_axis + place[:, 1]) * per_axis + place[:, 2]
    for label in block.unique():
        yield mesh.faces[block == label]


def _fill(image: UInt8[Tensor, "S S 3"], is_inside: Bool[Tensor, "S S"]) -> None:
    """Gives texels outside of all charts the colour of the nearest inside; beyond `REACH` rows, the mean colour."""
    if is_inside.all() or not is_inside.any():
        return
    size = len(image)
    image[~is_inside] = image[is_inside].float().mean(dim=0).round().to(torch.uint8)
    step = max(REACH, BAND // size)
    for top in range(0, size, step):
        first, last = max(0, top - REACH), top + step + REACH
        slab, is_known = image[first:last], is_inside[first:last]
        if not is_known.any():
            continue
        found = scipy.ndimage.distance_transform_edt(~is_known.numpy(), return_distances=False, return_indices=True)
        nearest = np.asarray(found)[:, top - first : top - first + step]
        row, column = torch.from_numpy(nearest).long()
        image[top : top + step] = slab[row, column]
