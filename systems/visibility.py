"""The part of a surface that cameras see.

Of a mesh, it is where rays through pixels first meet it. Of a cloud, it is the points that no others hide: points stand
for pieces of surface as wide as their spacing, so a point is hidden where others are in front of its tangent plane.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from datasets.cameras import Cameras
from datasets.views import Views
from systems.export import moved
from systems.geometry_error import MeshPoints
from utils.point_clouds import fitted_normals, spacing
from utils.progress import progress
from utils.rasterization import nearest_faces
from utils.registry import ConfigError
from utils.similarity import IDENTITY, carried, rotation_of
from utils.triangles import face_normals
from utils.types import Mesh, Surface

CELL = 3.0
"""Width of the cells in which points of a cloud hide each other, in spacings of the cloud."""
CLEARANCE = 2.0
"""Height above a point's tangent plane from which on others hide it, in spacings: points may be that far from flat."""
GRAZING = 0.1
"""Smallest cosine between a point's normal and the direction to a camera that sees it."""
REMEDY = "check that both are in the data set's coordinates"


def seen_points(mesh: Mesh, views: Views, n_points: int, seed: int) -> MeshPoints:
    """About `n_points` points of a mesh where rays through random pixels first meet it, as many of each view.

    Triangles that reach behind a camera are not seen by it.

    Args:
        mesh: in dataset coordinates.
        views: their cameras and `to_dataset` are used.
        n_points: there are fewer where fewer pixels show the mesh.
        seed: of the choice of pixels.

    Raises:
        ConfigError: no camera sees the mesh.
    """
    generator = torch.Generator().manual_seed(seed)
    scene, cameras = moved(mesh, _to_scene(views)), views.cameras
    position, face = [], []
    with progress("casting rays", len(views), "views") as tell:
        for view in range(len(views)):
            pixel, depth = cameras.project(torch.full((len(scene.vertices),), view), scene.vertices.float())
            seen = nearest_faces(pixel, depth, scene.faces, *views.size(view))
            seen = seen[torch.randperm(len(seen), generator=generator)[: -(-n_points // len(views))]]
            face.append(seen.face)
            position.append((seen.weight[:, :, None] * scene.vertices[scene.faces[seen.face]]).sum(dim=1))
            tell((view + 1) / len(views))
    # Weights are in single precision, which is enough for scenes but not for coordinates of surveys.
    inside = torch.cat(position)
    found = MeshPoints(inside if views.to_dataset is None else carried(inside, views.to_dataset), torch.cat(face))
    if not len(found.face):
        raise ConfigError(f"none of {len(views)} cameras sees the mesh; {REMEDY}")
    return found


def seen_surface(truth: Surface, views: Views, n_points: int, seed: int) -> Surface:
    """The truth, in dataset coordinates, with points only where cameras see it; distances to it stay as they are.

    Raises:
        ConfigError: no camera sees any of it.
    """
    if truth.mesh is not None:
        seen = seen_points(truth.mesh, views, n_points, seed)
        return replace(truth, points=seen.position, normals=face_normals(truth.mesh)[seen.face])
    points, to_scene = truth.points.double(), _to_scene(views)
    normals = fitted_normals(points) if truth.normals is None else truth.normals.double()
    inside = carried(points, to_scene)
    is_seen = unhidden(inside, normals @ rotation_of(to_scene).T, views.cameras, spacing(inside))
    if not is_seen.any():
        raise ConfigError(f"none of {len(views)} cameras sees the truth; {REMEDY}")
    return replace(truth, points=points[is_seen], normals=normals[is_seen])


def unhidden(
    points: Float64[Tensor, "P 3"], normals: Float64[Tensor, "P 3"], cameras: Cameras, width: float
) -> Bool[Tensor, "P"]:
    """[P] which points of a cloud some camera sees.

    Args:
        points: scene coordinates.
        normals: unit, of either side.
        cameras: on the CPU.
        width: spacing of the points.
    """
    is_seen = torch.zeros(len(points), dtype=torch.bool)
    with progress("hiding points", len(cameras), "views") as tell:
        for view in range(len(cameras)):
            pixel, depth = cameras.project(torch.full((len(points),), view), points.float())
            in_image = (pixel >= 0).all(-1) & (pixel < cameras.size[view]).all(-1)
            rows = (in_image & (depth > 0)).nonzero()[:, 0]
            if len(rows):
                size = CELL * width * cameras.focal[view] / depth[rows].median()
                cell = (pixel[rows] / size).long()
                towards = torch.nn.functional.normalize(cameras.pose[view, :, 3].double() - points[rows], dim=-1)
                is_seen[rows] |= _in_front(points[rows], normals[rows], towards, cell, depth[rows], CLEARANCE * width)
            tell((view + 1) / len(cameras))
    return is_seen


def _in_front(
    points: Tensor, normals: Tensor, towards: Tensor, cell: Tensor, depth: Tensor, clearance: float
) -> Bool[Tensor, "N"]:
    """[N] which points are hidden by none of the nearest ones in the cells around theirs."""
    columns, lines = (cell.amax(0) + 3).tolist()  # an empty cell on every side
    place = (cell[:, 1] + 1) * columns + cell[:, 0] + 1
    closest = torch.full((columns * lines,), torch.inf).scatter_reduce_(0, place, depth, "amin")
    owner = torch.full((columns * lines,), -1)
    is_closest = depth == closest[place]
    owner[place[is_closest]] = is_closest.nonzero()[:, 0]

    cosine = (normals * towards).sum(-1)
    is_free = cosine.abs() > GRAZING
    outward = normals * cosine.sign()[:, None]
    for step in (line * columns + column for line in (-1, 0, 1) for column in (-1, 0, 1)):
        other = owner[place + step]
        height = (outward * (points[other] - points)).sum(-1)
        is_free &= ~((other >= 0) & (depth[other] < depth) & (height > clearance))
    return is_free


def _to_scene(views: Views) -> Float64[Tensor, "4 4"]:
    return IDENTITY if views.to_dataset is None else torch.linalg.inv(views.to_dataset)
