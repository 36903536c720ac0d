"""A mesh without what photographs' masks rule out."""

import cv2
import numpy as np
import torch
from torch import Tensor

from datasets.views import Views
from systems.export import moved
from utils.progress import progress
from utils.registry import ConfigError
from utils.similarity import IDENTITY
from utils.types import Mesh


def within_masks(mesh: Mesh, views: Views, margin: float) -> Mesh:
    """The faces of a mesh all of whose corners are, in every view, inside the mask or outside of the image.

    Args:
        mesh: in dataset coordinates.
        views: with masks.
        margin: by which masks are widened, pixels.

    Raises:
        ConfigError: there are no masks, or nothing is left.
    """
    if views.alpha is None:
        raise ConfigError("--cull needs masks, but the data set has none; leave it out")
    to_scene = IDENTITY if views.to_dataset is None else torch.linalg.inv(views.to_dataset)
    vertices = moved(mesh, to_scene).vertices.float()
    is_kept = torch.ones(len(vertices), dtype=torch.bool)
    with progress("applying masks", len(views), "views") as tell:
        for view in range(len(views)):
            width, height = views.size(view)
            pixel, depth = views.cameras.project(torch.full((len(vertices),), view), vertices)
            in_image = (depth > 0) & (pixel >= 0).all(-1) & (pixel < views.cameras.size[view]).all(-1)
            mask = views.alpha[int(views.offsets[view]) : int(views.offsets[view + 1])].view(height, width)
            column, row = pixel[in_image].long().unbind(-1)
            is_kept[in_image] &= _widened(mask, margin)[row, column]
            tell((view + 1) / len(views))
    faces = mesh.faces[is_kept[mesh.faces].all(dim=-1)]
    if not len(faces):
        raise ConfigError(
            f"--cull {margin:g} leaves nothing of the mesh; check that it is in the data set's coordinates"
        )
    used, faces = faces.unique(return_inverse=True)
    return Mesh(mesh.vertices[used], faces)


def _widened(mask: Tensor, margin: float) -> Tensor:
    """[H, W] which pixels are at most `margin` from one that the object covers by half."""
    outside = (mask < 128).numpy().astype(np.uint8)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return torch.from_numpy(distance <= margin)
