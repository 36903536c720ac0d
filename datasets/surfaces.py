"""Surfaces from files: triangle meshes and point clouds."""

from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from utils.point_clouds import spacing
from utils.registry import ConfigError
from utils.triangles import TriangleTree, draw_points, face_normals
from utils.types import Mesh, Surface

N_SURFACE_POINTS = 200_000
ENDINGS = (".ply", ".obj", ".stl", ".off", ".glb")
"""Of files that are read."""


def read_surface(path: Path) -> Surface:
    """The surface in a mesh or point cloud file (PLY, OBJ, STL, OFF, GLB), in the coordinates of the file.

    Raises:
        ConfigError: the file cannot be read, or holds neither triangles nor points.
    """
    geometry = read_geometry(path)
    if isinstance(geometry, Tensor):
        return cloud_surface(geometry)
    try:
        return mesh_surface(geometry)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_mesh(path: Path) -> Mesh:
    """The triangles in a file.

    Raises:
        ConfigError: the file cannot be read, or holds no triangles.
    """
    geometry = read_geometry(path)
    if isinstance(geometry, Tensor):
        raise ConfigError(f"{path} holds {len(geometry):,} points but no triangles; expected a mesh")
    return geometry


def read_geometry(path: Path) -> Mesh | Float[Tensor, "P 3"]:
    """The mesh in a file or, where it has no triangles, its points; in the coordinates of the file, float64.

    Raises:
        ConfigError: the file cannot be read, holds neither, or a place that is not finite.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; expected a mesh or point cloud ({', '.join(ENDINGS)})")
    try:
        loaded = trimesh.load(path, process=False)
    except Exception as error:  # trimesh's readers raise whatever their formats need
        raise ConfigError(f"{path} cannot be read as a mesh or point cloud: {error}") from error
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_geometry()
    vertices = torch.as_tensor(np.asarray(getattr(loaded, "vertices", np.zeros((0, 3)))), dtype=torch.float64)
    faces = torch.as_tensor(np.asarray(getattr(loaded, "faces", np.zeros((0, 3)))), dtype=torch.int64)
    if not len(vertices):
        raise ConfigError(f"{path} holds neither triangles nor points; expected a mesh or a point cloud")
    if not vertices.isfinite().all():
        n_broken = int((~vertices.isfinite()).any(dim=1).sum())
        raise ConfigError(f"{path}: {n_broken:,} of {len(vertices):,} points are NaN or infinite; export it again")
    return Mesh(vertices, faces) if len(faces) else vertices


def cloud_surface(points: Float[Tensor, "P 3"]) -> Surface:
    """A surface known by points on it; distances are those to the nearest point, too large by up to their spacing."""
    tree = KDTree(points.double().numpy())

    def distance(query: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return torch.from_numpy(tree.query(query.detach().double().cpu().numpy(), workers=-1)[0]).to(query)

    return Surface(points, distance, bounding_diameter(points), spacing=spacing(points))


def mesh_surface(mesh: Mesh) -> Surface:
    """A surface known as triangles, with points spread evenly over them.

    Raises:
        ValueError: the mesh has no area.
    """
    points, face = draw_points(mesh, N_SURFACE_POINTS, seed=0)
    tree = TriangleTree(mesh)

    def distance(query: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return tree.nearest(query)[0].to(query)

    return Surface(points, distance, bounding_diameter(mesh.vertices), face_normals(mesh)[face], mesh)


def bounding_diameter(points: Float[Tensor, "P 3"]) -> float:
    """Diameter of the sphere around the middle of the bounding box that holds all points."""
    middle = 0.5 * (points.amin(0) + points.amax(0))
    return 2 * (points - middle).norm(dim=-1).max().item()
