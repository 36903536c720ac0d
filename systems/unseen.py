"""Which faces of a mesh cameras see."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.cameras import Cameras
from models.mesh import vertex_normals
from utils.rasterization import nearest_faces
from utils.types import Mesh

GRAZING = 0.3
"""Cosine between a normal and the direction to a camera below which the depth at a pixel tells nothing of a vertex."""


def seen_faces(
    mesh: Mesh, cameras: Cameras, progress: Callable[[float], None] = lambda share: None
) -> Bool[Tensor, "F"]:
    """[F] which faces some camera sees: those that are nearest at a pixel's centre, and those with a corner in sight.

    Faces may be smaller than pixels, so that few own one. A corner is in sight where it faces the camera and is no
    farther than what the pixel shows, but for what the surface may gain in depth across a pixel.

    Args:
        mesh: on the CPU, in the coordinates of the cameras.
        cameras: all of them are asked.
        progress: told the finished share, in [0, 1].
    """
    cameras, normals = cameras.to("cpu"), vertex_normals(mesh.vertices, mesh.faces)
    is_owner = torch.zeros(len(mesh.faces), dtype=torch.bool)
    in_sight = torch.zeros(len(mesh.vertices), dtype=torch.bool)
    for view in range(len(cameras)):
        pixel, depth = cameras.project(torch.full((len(mesh.vertices),), view), mesh.vertices)
        width, height = cameras.size[view].tolist()
        seen = nearest_faces(pixel, depth, mesh.faces, width, height)
        is_owner[seen.face] = True

        wall = torch.full((height * width,), torch.inf)
        if len(seen):
            wall[seen.pixel] = seen.interpolate(depth[:, None], mesh.faces)[:, 0]
        inside = ((pixel >= 0) & (pixel < cameras.size[view])).all(dim=-1) & (depth > 0)
        rows = (inside & ~in_sight).nonzero()[:, 0]
        column, row = pixel[rows].long().unbind(-1)
        gain = _gain(mesh.vertices[rows], normals[rows], depth[rows], cameras, view)
        in_sight[rows] = depth[rows] <= wall[row * width + column] + gain
        progress((view + 1) / len(cameras))
    return is_owner | in_sight[mesh.faces].any(dim=-1)


def _gain(
    vertices: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    depth: Float[Tensor, "N"],
    cameras: Cameras,
    view: int,
) -> Float[Tensor, "N"]:
    """Depth that a plane through each vertex may gain across a pixel, world units; -inf where it faces away."""
    towards = torch.nn.functional.normalize(cameras.pose[view, :, 3] - vertices, dim=-1)
    cosine = (normals * towards).sum(dim=-1)
    width = depth / cameras.focal[view].min()
    return torch.where(cosine > GRAZING, width * (1 + (1 / cosine.square() - 1).sqrt()), -torch.inf)
