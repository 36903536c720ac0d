"""COLMAP projects: photographs in `images`, cameras and sparse points in `sparse/0`, maybe masks in `masks`.

Distortion of lenses is obeyed, so the photographs need not be undistorted. COLMAP leaves open where up is, how large
the world is and where its origin lies; `datasets.normalize` decides.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from datasets import datasets
from datasets.capture import Capture, CaptureConfig
from datasets.capture_reader import CaptureReader
from datasets.colmap_files import read_model
from datasets.colmap_model import NO_POINT, ColmapModel
from datasets.colmap_project import find_masks, find_photographs, find_project
from datasets.lenses import at_sizes
from datasets.normalize import NormalizeConfig, normalize, points_to_scene, to_scene
from datasets.photographs import Shot
from datasets.points import SparsePoints
from datasets.region import region_in_sight


@datasets.register("colmap")
class Colmap(CaptureReader):
    """A folder as COLMAP leaves it, with a binary or a text model."""

    @dataclass(kw_only=True)
    class Config(CaptureConfig, NormalizeConfig):
        """Keys of all captures, and how the world is normalised."""

    config: Config

    def _read(self) -> Capture:
        config = self.config
        project = find_project(self._root, config.img_downscale)
        model = read_model(project.model)
        names = [image.name for image in model.images]
        files = find_photographs(project.images, names)
        masks = find_masks(project.masks, names)

        pose = torch.from_numpy(np.stack([image.pose() for image in model.images]))  # [V, 3, 4]
        to_dataset = self._to_dataset(model, pose)
        shots = []
        for row, (image, scene_pose) in enumerate(zip(model.images, to_scene(pose, to_dataset), strict=True)):
            where = f"{project.model}, {image.name}"
            camera = model.cameras[image.camera]
            lens = at_sizes(camera.lens(), camera.width, camera.height, project.divisor, where)
            shots.append(Shot(where, files[row], scene_pose, lens, None if masks is None else masks[row]))
        if project.divisor > 1:
            config = replace(config, img_downscale=None)
        fits_masks = config.center_est_method == "region"
        return Capture(shots, config, to_dataset, _points(model, to_dataset), fits_masks)

    def _to_dataset(self, model: ColmapModel, pose: Float64[Tensor, "V 3 4"]) -> Float64[Tensor, "4 4"]:
        position = torch.from_numpy(model.points.position) if len(model.points) else None
        if self.config.center_est_method != "region":
            return normalize(pose, position, self.config)
        cameras = [model.cameras[image.camera] for image in model.images]
        half_size = torch.tensor([[camera.width / 2, camera.height / 2] for camera in cameras])
        tangent = half_size / torch.stack([camera.lens().focal for camera in cameras])  # [V, 2]
        return normalize(pose, position, self.config, region_in_sight(pose, position, tangent))


def _points(model: ColmapModel, to_dataset: Float64[Tensor, "4 4"]) -> SparsePoints | None:
    """The points, observed at shares of the width and height of images."""
    if not len(model.points):
        return None
    views, rows, pixels = [], [], []
    for view, image in enumerate(model.images):
        camera, is_seen = model.cameras[image.camera], image.point != NO_POINT
        rows.append(np.searchsorted(model.points.number, image.point[is_seen]))
        pixels.append(image.pixel[is_seen] / (camera.width, camera.height))
        views.append(np.full(len(rows[-1]), view))
    return SparsePoints(
        position=points_to_scene(torch.from_numpy(model.points.position), to_dataset),
        color=torch.from_numpy(model.points.color),
        error=torch.from_numpy(model.points.error).float(),
        view=torch.from_numpy(np.concatenate(views)),
        point=torch.from_numpy(np.concatenate(rows)),
        pixel=torch.from_numpy(np.concatenate(pixels)).float(),
    )
