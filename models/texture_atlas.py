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
from jaxtyping import Float, Int
from torch import Tensor

from models.mesh import vertex_normals
from utils.types import Mesh

FACES_PER_BLOCK = 4000
"""Mean number of faces that xatlas unwraps at once."""
PADDING = 4
"""Texels between charts, so that filtering and mipmaps do not mix neighbours."""
PAIRS = 2**22
"""Most pairs of a face and a texel that are tested at once, unless one face has more."""


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
    texel, face, weight = _rasterize(mesh.uv, mesh.faces, size)
    image = torch.zeros(size * size, 3, dtype=torch.uint8)
    for start in range(0, len(texel), chunk):
        part = slice(start, start + chunk)
        corner = mesh.faces[face[part]]  # [N, 3]
        point, normal = ((weight[part, :, None] * value[corner]).sum(dim=1) for value in (mesh.vertices, mesh.normals))
        with torch.no_grad():
            shade = color(point, torch.nn.functional.normalize(normal, dim=-1))
        image[texel[part]] = (shade.clamp(0, 1) * 255).round().to(torch.uint8)
        progress(min(1.0, (start + chunk) / len(texel)))
    return replace(mesh, texture=_fill(image.view(size, size, 3), texel))


def _blocks(mesh: Mesh) -> Iterator[Int[Tensor, "B 3"]]:
    """The faces, sorted into the blocks of a grid over the bounding box."""
    centre = mesh.vertices[mesh.faces].mean(dim=1)
    lower, upper = centre.amin(dim=0), centre.amax(dim=0)
    per_axis = max(1, round((len(mesh.faces) / FACES_PER_BLOCK) ** (1 / 3) + 0.5))
    place = ((centre - lower) / (upper - lower).clamp(min=1e-12) * per_axis).long().clamp(max=per_axis - 1)
    block = (place[:, 0] * per_axis + place[:, 1]) * per_axis + place[:, 2]
    for label in block.unique():
        yield mesh.faces[block == label]


def _rasterize(
    uv: Float[Tensor, "V 2"], faces: Int[Tensor, "F 3"], size: int
) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"], Float[Tensor, "T 3"]]:
    """Texels whose centre lies in a face: their place in the flat image, the face, and barycentric weights.

    Every pair of a face and a texel in its bounding box is tested, some millions of pairs at a time.
    """
    # Centres of texels have integer coordinates here, x to the right and y down.
    scaled = uv.double() * size
    corner = torch.stack([scaled[:, 0], size - scaled[:, 1]], dim=-1)[faces] - 0.5  # [F, 3, 2]
    lower = corner.amin(dim=1).ceil().long().clamp(min=0)
    extent = (corner.amax(dim=1).floor().long().clamp(max=size - 1) - lower + 1).clamp(min=0)
    n_pairs = extent.prod(dim=1)

    found = []
    for part in torch.arange(len(faces)).split(_runs(n_pairs)):
        face = part.repeat_interleave(n_pairs[part])
        first = n_pairs[part].cumsum(0) - n_pairs[part]
        i = torch.arange(len(face)) - first.repeat_interleave(n_pairs[part])
        place = lower[face] + torch.stack([i % extent[face, 0], i // extent[face, 0]], dim=-1)
        weight = _barycentric(corner[face], place)
        # Rounding must not lose a texel on the edge of two faces; a face without area has infinite weights.
        inside = ((weight >= -1e-9) & weight.isfinite()).all(dim=-1)
        place = place[inside]
        found.append((place[:, 1] * size + place[:, 0], face[inside], weight[inside].float()))
    texel, face, weight = (torch.cat(column) for column in zip(*found, strict=True))
    return texel, face, weight


def _runs(n_pairs: Int[Tensor, "F"]) -> list[int]:
    """Lengths of runs of faces with at most `PAIRS` pairs each, or a single face."""
    total = n_pairs.cumsum(0)
    ends, start, before = [0], 0, 0
    while start < len(n_pairs):
        start = max(start + 1, int(torch.searchsorted(total, before + PAIRS, right=True)))
        before = int(total[start - 1])
        ends.append(start)
    return np.diff(ends).tolist()


def _barycentric(corner: Float[Tensor, "N 3 2"], point: Int[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    """Weights of the three corners, which sum to 1; whatever the winding."""
    a, b, c = (corner - point[:, None]).unbind(dim=1)

    def cross(p: Tensor, q: Tensor) -> Tensor:
        return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]

    weight = torch.stack([cross(b, c), cross(c, a), cross(a, b)], dim=-1)
    return weight / weight.sum(dim=-1, keepdim=True)


def _fill(image: Tensor, texel: Int[Tensor, "T"]) -> Tensor:
    """The image with every texel that is not listed in `texel` replaced by the nearest that is."""
    is_empty = torch.ones(image.shape[:2], dtype=torch.bool)
    is_empty.view(-1)[texel] = False
    if is_empty.all():
        return image
    nearest = scipy.ndimage.distance_transform_edt(is_empty.numpy(), return_distances=False, return_indices=True)
    row, column = torch.from_numpy(nearest).long()
    return image[row, column]
