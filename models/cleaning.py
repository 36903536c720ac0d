"""Meshes without what nobody wants to keep: specks, faces that no camera sees, the steps of the grid."""

from dataclasses import replace

import numpy as np
import scipy.sparse
import torch
import trimesh
from jaxtyping import Bool
from torch import Tensor

from models.mesh import components, face_areas, vertex_normals
from utils.types import Mesh

SHRINK, INFLATE = 0.5, 0.52
"""Steps of one round of smoothing: what the first pulls in, the second pushes out (Taubin 1995)."""


def keep_components(mesh: Mesh, n: int = 0, least_share: float = 0.0) -> tuple[Mesh, int]:
    """The connected parts that matter.

    Args:
        mesh: with one part at least.
        n: how many parts are kept, the largest by area first; 0 sets no limit.
        least_share: share of the whole area below which a part is dropped, in [0, 1). The largest part always stays.

    Returns:
        The mesh and how many parts it has lost.
    """
    count, part = components(mesh)
    area = torch.bincount(part, face_areas(mesh), minlength=count)
    order = area.argsort(descending=True)
    stays = area[order] >= least_share * area.sum()
    stays[0] = True
    stays[n or len(stays) :] = False
    if stays.all():
        return mesh, 0
    return select(mesh, torch.isin(part, order[stays])), int((~stays).count_nonzero())


def select(mesh: Mesh, chosen: Bool[Tensor, "F"]) -> Mesh:
    """The chosen faces, with the vertices they use."""
    used, faces = mesh.faces[chosen].unique(return_inverse=True)
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
