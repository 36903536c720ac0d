"""Meshes without what nobody wants to keep: specks, cavities, faces that no camera sees, the steps of the grid."""

from dataclasses import replace

import numpy as np
import scipy.sparse
import torch
import trimesh
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.mesh import PER_CALL, components, face_areas, vertex_normals
from utils.types import Mesh

SHRINK, INFLATE = 0.5, 0.52
"""Steps of one round of smoothing: what the first pulls in, the second pushes out (Taubin 1995)."""


def keep_components(mesh: Mesh, n: int = 0, least_share: float = 0.0, fills_cavities: bool = False) -> tuple[Mesh, int]:
    """The connected parts that matter.

    Args:
        mesh: with one part at least, its faces wound outward.
        n: how many parts are kept, the largest by area first; 0 sets no limit.
        least_share: share of the whole area below which a part is dropped, in [0, 1). The largest part always stays.
        fills_cavities: whether closed parts that bound a hollow within something solid are dropped, whatever their
            size; they do not count for the whole area.

    Returns:
        The mesh and how many parts it has lost.
    """
    count, part = components(mesh)
    area = torch.bincount(part, face_areas(mesh), minlength=count)
    if fills_cavities:
        area[_cavities(mesh, part, area)] = -1  # last in every order, and never enough
    order = area.argsort(descending=True)
    stays = area[order] >= least_share * area.clamp(min=0).sum()
    stays[0] = True
    stays[n or len(stays) :] = False
    if stays.all():
        return mesh, 0
    return select(mesh, torch.isin(part, order[stays])), int((~stays).count_nonzero())


def _cavities(mesh: Mesh, part: Int[Tensor, "F"], area: Float[Tensor, "K"]) -> Bool[Tensor, "K"]:
    """Which parts are closed and wound inward; never the largest, which may be a room seen from within."""
    volumes = torch.cat([_volumes(mesh.vertices[faces]) for faces in mesh.faces.split(PER_CALL)])
    is_inward = torch.bincount(part, volumes, minlength=len(area)) < 0
    is_inward[area.argmax()] = False
    # The volume within a surface that is open says nothing: each of its edges has to have two faces.
    chosen = is_inward[part]
    faces, of_face = mesh.faces[chosen], part[chosen]
    ends = torch.stack([faces, faces.roll(-1, dims=1)]).sort(dim=0).values  # [2, C, 3]
    _, edge, n_faces = (ends[0] * len(mesh.vertices) + ends[1]).unique(return_inverse=True, return_counts=True)
    is_inward[of_face[(n_faces[edge] != 2).any(dim=1)]] = False
    return is_inward


def _volumes(corner: Float[Tensor, "F 3 3"]) -> Float[Tensor, "F"]:
    """[F] float64, six times the volumes of tetrahedra between the origin and triangles, positive where those face
    away from it."""
    a, b, c = corner.double().unbind(1)
    return (a * torch.linalg.cross(b, c)).sum(-1)


def select(mesh: Mesh, chosen: Bool[Tensor, "F"]) -> Mesh:
    """The chosen faces, with the vertices they use."""
    faces, used = mesh.faces[chosen], torch.zeros(len(mesh.vertices), dtype=torch.bool)
    used[faces.flatten()] = True
    faces = (used.cumsum(0) - 1)[faces]
    of_vertices = {
        name: value[used]
        for name in ("vertices", "normals", "colors", "uv")
        if (value := getattr(mesh, name)) is not None
    }
    return replace(mesh, faces=faces, **of_vertices)


def smooth(mesh: Mesh, n_rounds: int) -> Mesh:
    """The mesh after Taubin's smoothing, which takes off the noise and, unlike a plain average, not the size.

    Args:
        mesh: each vertex moves towards the mean of those it shares an edge with.
        n_rounds: 0 leaves everything as it is; 10 take off the steps of the grid.
    """
    if n_rounds == 0:
        return mesh
    n = len(mesh.vertices)
    ends = np.concatenate([mesh.faces[:, [i, (i + 1) % 3]].numpy() for i in range(3)])
    pairs = np.concatenate([ends, ends[:, ::-1]]).T
    neighbours = scipy.sparse.csr_array((np.ones(pairs.shape[1], dtype=bool), pairs), shape=(n, n))
    mean = scipy.sparse.diags_array(1 / np.maximum(neighbours.sum(axis=1), 1)) @ neighbours
    body = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    trimesh.smoothing.filter_taubin(body, SHRINK, INFLATE, 2 * n_rounds, laplacian_operator=mean)
    vertices = torch.from_numpy(np.array(body.vertices)).float()
    return replace(mesh, vertices=vertices, normals=vertex_normals(vertices, mesh.faces))
