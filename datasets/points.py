"""Sparse points of a scene, as structure from motion leaves them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from utils.notice import notice
from utils.registry import ConfigError
from utils.types import Record

MIN_VIEWS = 3
"""Photographs that have to show a point before it is trusted; two can agree by accident."""
MAX_ERROR = 2.0
"""Largest reprojection error of a trusted point, in medians."""


@dataclass
class SparsePoints(Record):
    """M points in scene coordinates and K observations of them in photographs.

    Attributes:
        position: [M, 3] scene coordinates.
        color: [M, 3] RGB, or None if unknown.
        error: [M] mean reprojection error in pixels of the original photographs, or None if unknown.
        view: [K] row of the camera that observed, among the cameras of the `Views` that hold these points.
        point: [K] row of the position that was observed.
        pixel: [K, 2] continuous place in the image, at the size at which it is used.
    """

    position: Float[Tensor, "M 3"]
    color: UInt8[Tensor, "M 3"] | None
    error: Float[Tensor, "M"] | None
    view: Int[Tensor, "K"]
    point: Int[Tensor, "K"]
    pixel: Float[Tensor, "K 2"]

    def __len__(self) -> int:
        return self.position.shape[0]

    def trusted(self, radius: float) -> Float[Tensor, "K 3"]:
        """The positions that are good enough to teach a surface.

        These lie in the box of half side `radius`, are seen in at least three of the photographs, where that is known,
        and have at most twice the median reprojection error, where that is.

        Raises:
            ConfigError: there are none.
        """
        is_good = (self.position.abs() <= radius).all(-1)
        if len(self.point):
            is_good &= torch.bincount(self.point, minlength=len(self)) >= MIN_VIEWS
        if self.error is not None and is_good.any():
            is_good &= self.error <= MAX_ERROR * self.error[is_good].median()
        if not is_good.any():
            raise ConfigError(
                f"none of the {len(self)} sparse points lies within model.radius = {radius:g} and is seen in "
                f"{MIN_VIEWS} photographs; set system.loss.lambda_sparse_points to 0, or check model.radius"
            )
        return self.position[is_good]

    @classmethod
    def unobserved(cls, position: Float[Tensor, "M 3"], color: UInt8[Tensor, "M 3"] | None = None) -> "SparsePoints":
        """Points of which no photograph is known to show them."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls(position, color, None, none, none, torch.zeros(0, 2))


Cloud = tuple[Float64[Tensor, "M 3"] | None, UInt8[Tensor, "M 3"] | None]
"""Positions and colours of points from a file, None where unknown."""


def read_cloud(path: Path) -> Cloud:
    """Positions and colours in a file of points (PLY); None where unknown, with a notice if there is no such file.

    Raises:
        ConfigError: it holds anything else.
    """
    if not path.is_file():
        notice(f"{path} is missing; the scene is placed without its sparse points")
        return None, None
    try:
        cloud = trimesh.load(path, process=False)
    except Exception as error:  # trimesh's readers raise whatever their formats need
        raise ConfigError(f"{path} cannot be read as a point cloud: {error}; replace or remove it") from error
    if not isinstance(cloud, trimesh.PointCloud) or not np.isfinite(cloud.vertices).all():
        raise ConfigError(f"{path} is no cloud of finite points; replace or remove it")
    has_color = len(cloud.colors) == len(cloud.vertices)
    color = torch.from_numpy(np.array(cloud.colors[:, :3], dtype=np.uint8)) if has_color else None
    return torch.from_numpy(np.array(cloud.vertices, dtype=np.float64)), color
