"""Known true surfaces from files: triangle meshes and point clouds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from utils.registry import ConfigError
from utils.types import Surface

N_SURFACE_POINTS = 200_000
N_CANDIDATES = 8


def read_surface(path: Path) -> Surface:
    """The surface in a mesh or point cloud file (PLY, OBJ, STL, OFF, GLB), in the coordinates of the file.

    Raises:
        ConfigError: the file cannot be read, or holds neither triangles nor points.
    """
    try:
        loaded = trimesh.load(path, process=False)
    except Exception as error:  # trimesh's readers raise whatever their formats need
        raise ConfigError(f"{path} cannot be read as a mesh or point cloud: {error}") from error
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_geometry()
    if isinstance(loaded, trimesh.Trimesh) and len(loaded.faces):
        return mesh_surface(loaded)
    if isinstance(loaded, trimesh.PointCloud) and len(loaded.vertices):
        return cloud_surface(torch.as_tensor(np.asarray(loaded.vertices)).float())
    raise ConfigError(f"{path} holds neither triangles nor points; expected a mesh or a point cloud")


def cloud_surface(points: Float[Tensor, "P 3"]) -> Surface:
    """A surface known by points on it; distances are those to the nearest point, too large by up to their spacing."""
    tree = KDTree(points.double().numpy())

    def distance(query: np.ndarray) -> np.ndarray:
        return tree.query(query, workers=-1)[0]

    return Surface(points, _on_tensors(distance), bounding_diameter(points))


def mesh_surface(mesh: trimesh.Trimesh) -> Surface:
    """A surface known as triangles.

    Distances are exact to the nearest triangle among those that hold the nearest of many points spread over
    the mesh, hence never too small.
    """
    samples, faces = trimesh.sample.sample_surface(mesh, N_SURFACE_POINTS, seed=0)[:2]
    tree = KDTree(samples)

    def distance(query: np.ndarray) -> np.ndarray:
        _, nearest = tree.query(query, k=N_CANDIDATES, workers=-1)  # [N, K]
        triangles = mesh.triangles[faces[nearest.reshape(-1)]]
        repeated = np.repeat(query, N_CANDIDATES, axis=0)
        closest = trimesh.triangles.closest_point(triangles, repeated)
        return np.linalg.norm(closest - repeated, axis=-1).reshape(nearest.shape).min(-1)

    points = torch.as_tensor(samples).float()
    return Surface(points, _on_tensors(distance), bounding_diameter(torch.as_tensor(mesh.vertices).float()))


def bounding_diameter(points: Float[Tensor, "P 3"]) -> float:
    """Diameter of the sphere around the middle of the bounding box that holds all points."""
    middle = 0.5 * (points.amin(0) + points.amax(0))
    return 2 * (points - middle).norm(dim=-1).max().item()


def _on_tensors(distance: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensor], Tensor]:
    def measure(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        measured = distance(points.detach().double().cpu().numpy())
        return torch.as_tensor(measured, dtype=points.dtype, device=points.device)

    return measure
