"""A mesh's colours as an image: unwrap, bake.

Texture coordinates have their origin at the lower left, images their row 0 at the top: the texel in row `r` and
column `c` of a square of `size` texels has its centre at u = (c + 1/2) / size, v = 1 - (r + 1/2) / size.

Charts are grown by xatlas, whose time rises much faster than the number of faces of a piece; unwrapping block by
block cuts seams along the blocks' borders and takes a tenth of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import torch
import xatlas
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.decimation import blocks
from models.mesh import vertex_normals
from utils.rasterization import fragments
from utils.types import Mesh

FACES_PER_BLOCK = 4000
"""Mean number of faces that xatlas unwraps as one."""
BLOCKS_AT_ONCE = 8
"""Blocks between two words on progress; xatlas gives each a thread."""
PADDING = 4
"""Texels between charts, so that filtering and mipmaps do not mix neighbours."""
GRID = 2
"""Texels of the cells in which charts are packed: a coarse grid takes a fraction of the time and hardly more space."""
BAND = 2**21
"""Texels of a band of rows."""
REACH = 64
"""Texels outside of the charts."""


def unwrap(mesh: Mesh, size: int = 2048, progress: Callable[[float], None] = lambda share: None) -> Mesh:
    """The mesh with texture coordinates; vertices on seams are repeated, once per chart.

    Args:
        mesh: with or without normals; missing ones are computed before the seams are cut.
        size: side of the texture that will be baked, in texels; padding between charts follows from it.
        progress: told the finished share, in [0, 1].

    Returns:
        Vertices, faces, normals, colours if any, and uv in [0, 1]. Faces are in another order.
    """
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    parts, pieces = list(blocks(mesh, FACES_PER_BLOCK)), []
    for start in range(0, len(parts), BLOCKS_AT_ONCE):
        pieces += _flatten(mesh, parts[start : start + BLOCKS_AT_ONCE])
        progress(0.9 * len(pieces) / len(parts))

    atlas = _pack(pieces, size)
    progress(1.0)
    source, faces, uv, n = [], [], [], 0
    for i, piece in enumerate(pieces):
        origin, local, coordinates = atlas[i]
        source.append(piece.vertex[origin.astype(np.int64)])
        faces.append(torch.from_numpy(local.astype(np.int64)) + n)
        uv.append(torch.from_numpy(coordinates))
        n += len(origin)
    row = torch.cat(source)
    colors = None if mesh.colors is None else mesh.colors[row]
    return Mesh(mesh.vertices[row], torch.cat(faces), normals[row], colors, torch.cat(uv))


@dataclass
class _Piece:
    """A block of faces, flattened.

    Attributes:
        vertex: [v] rows of the mesh's vertices, repeated where charts meet.
        faces: [f, 3] rows of `vertex`.
        place: [v, 2] in some plane, world units, chart beside chart.
    """

    vertex: Int[Tensor, "v"]
    faces: np.ndarray
    place: np.ndarray


def _flatten(mesh: Mesh, blocks: list[Int[Tensor, "_ 3"]]) -> list[_Piece]:
    """Charts of blocks, which xatlas works on side by side."""
    atlas, used = xatlas.Atlas(), []
    for block in blocks:
        vertex, faces = block.unique(return_inverse=True)
        atlas.add_mesh(mesh.vertices[vertex].numpy(), faces.numpy().astype(np.uint32))
        used.append(vertex)
    atlas.generate()
    # Without area there is no chart, and then no scale.
    scale = np.array([atlas.width, atlas.height], dtype=np.float32) / max(atlas.texels_per_unit, 1e-30)
    pieces = []
    for i, vertex in enumerate(used):
        origin, faces, place = atlas[i]
        pieces.append(_Piece(vertex[origin.astype(np.int64)], faces, place * scale))
    return pieces


def _pack(pieces: list[_Piece], size: int) -> xatlas.Atlas:
    """All charts in one square. The scale that fills it follows from a first try, which may be off by a factor of 2."""
    packing = xatlas.PackOptions()
    packing.padding, packing.resolution = PADDING // GRID, max(size // GRID, 1)
    first = _placed(pieces, packing)
    packing.texels_per_unit = first.texels_per_unit * packing.resolution / max(first.width, first.height, 1)
    packing.resolution = 0  # as large as it gets, instead of a second atlas
    return _placed(pieces, packing)


def _placed(pieces: list[_Piece], packing: xatlas.PackOptions) -> xatlas.Atlas:
    atlas = xatlas.Atlas()
    for piece in pieces:
        atlas.add_uv_mesh(piece.place, piece.faces)
    atlas.generate(pack_options=packing)
    return atlas


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
    is_inside, done = torch.zeros(size * size, dtype=torch.bool), 0
    for part in fragments(_texels(mesh.uv, size)[mesh.faces], size, size):
        for start in range(0, len(part), chunk):
            piece = part[start : start + chunk]
            point, normal = (piece.interpolate(value, mesh.faces) for value in (mesh.vertices, mesh.normals))
            with torch.no_grad():
                shade = color(point, torch.nn.functional.normalize(normal, dim=-1))
            image[piece.pixel] = (shade.clamp(0, 1) * 255).round().to(torch.uint8)
            is_inside[piece.pixel] = True
            done = max(done, int(piece.pixel[-1]) + 1)
            progress(done / len(image))
    _fill(image.view(size, size, 3), is_inside.view(size, size))
    return replace(mesh, texture=image.view(size, size, 3))


def _texels(uv: Float[Tensor, "V 2"], size: int) -> Float[Tensor, "V 2"]:
    """Places in the image of a texture, in texels from its upper left corner."""
    return size * torch.stack([uv[:, 0], 1 - uv[:, 1]], dim=-1)


def _fill(image: UInt8[Tensor, "S S 3"], is_inside: Bool[Tensor, "S S"]) -> None:
    """Gives texels outside of all charts the colour of the nearest inside; beyond `REACH` rows, the mean colour."""
    if is_inside.all() or not is_inside.any():
        return
    size = len(image)
    # What is outside is still 0, so all may be added up.
    mean = image.sum(dim=(0, 1), dtype=torch.int64) / is_inside.sum()
    image[~is_inside] = mean.round().to(torch.uint8)
    step = max(REACH, BAND // size)
    for top in range(0, size, step):
        first, last = max(0, top - REACH), top + step + REACH
        slab, is_known = image[first:last], is_inside[first:last]
        if not is_known.any():
            continue
        nearest = scipy.ndimage.distance_transform_edt(~is_known.numpy(), return_distances=False, return_indices=True)
        row, column = torch.from_numpy(np.asarray(nearest)[:, top - first : top - first + step]).long()
        image[top : top + step] = slab[row, column]
