"""What a reconstruction is measured against: a file, the depth maps of a data set, or the surface that it knows."""

from dataclasses import replace
from pathlib import Path

import torch

from datasets.crop_volume import CropVolume
from datasets.surfaces import cloud_surface, read_surface
from datasets.views import Views
from systems.export import moved
from utils.point_clouds import voxel_means
from utils.registry import ConfigError
from utils.similarity import carried, rotation_of, scale_of
from utils.types import Surface

MOST_PIXELS = 2_000_000
"""Pixels of depth maps that make a surface."""


def file_truth(path: Path, voxel: float | None) -> Surface:
    """The surface in a file; of a cloud, the mean of the points in every voxel of that side.

    Raises:
        ConfigError: the file cannot be used, or a voxel would have no effect.
    """
    surface = read_surface(path)
    if voxel is None:
        return surface
    if surface.mesh is not None:
        raise ConfigError(f"--voxel has no effect: {path} holds triangles, which are sampled evenly")
    return cloud_surface(torch.from_numpy(voxel_means(surface.points.double().numpy(), voxel)))


def data_truth(views: Views) -> Surface:
    """The surface, in dataset coordinates, that the data set knows.

    Raises:
        ConfigError: it knows none.
    """
    known, to_dataset = views.surface, views.to_dataset
    if known is None:
        raise ConfigError("the data set knows no true surface; add --truth FILE, --depth SPLIT or --dtu DIR")
    if to_dataset is None:
        return known
    to_scene, scale = torch.linalg.inv(to_dataset), scale_of(to_dataset)
    return Surface(
        carried(known.points, to_dataset),
        lambda query: scale * known.distance(carried(query, to_scene)),
        scale * known.diameter,
        None if known.normals is None else known.normals.double() @ rotation_of(to_dataset).T,
        None if known.mesh is None else moved(known.mesh, to_dataset),
        scale * known.spacing,
    )


def depth_truth(views: Views, seed: int) -> Surface:
    """The points, in dataset coordinates, that the depth maps of views show: 2,000,000 of them where there are more.

    Raises:
        ConfigError: there are none.
    """
    if views.depth is None:
        raise ConfigError("--depth: the data set has no depth maps; use --truth FILE")
    generator, points = torch.Generator().manual_seed(seed), []
    for view in range(len(views)):
        depth = views.depth[int(views.offsets[view]) : int(views.offsets[view + 1])]
        pixel = (depth > 0).nonzero()[:, 0]
        pixel = pixel[torch.randperm(len(pixel), generator=generator)[: -(-MOST_PIXELS // len(views))]]
        width = views.size(view)[0]
        place = torch.stack([pixel % width, pixel // width], dim=-1)
        origins, directions = views.cameras.rays(torch.full((len(pixel),), view), place)
        points.append(origins.double() + depth[pixel, None] * directions)
    cloud = torch.cat(points)
    if not len(cloud):
        raise ConfigError("--depth: the depth maps are empty, 0 everywhere; check their scale and masks")
    return cloud_surface(cloud if views.to_dataset is None else carried(cloud, views.to_dataset))


def cropped(truth: Surface, volume: CropVolume) -> Surface:
    """The truth with points inside a volume only; distances to it stay as they are.

    Raises:
        ConfigError: nothing is inside.
    """
    inside = volume.holds(truth.points)
    if not inside.any():
        raise ConfigError("--crop leaves nothing of the truth; check that both are in the same coordinates")
    normals = None if truth.normals is None else truth.normals[inside]
    return replace(truth, points=truth.points[inside], normals=normals)
