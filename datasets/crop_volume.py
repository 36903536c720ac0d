"""The part of space in which surfaces are compared: crop volumes as Tanks and Temples gives them, and Open3D writes.

A polygon, seen along an axis, and a range on that axis: JSON with `orthogonal_axis` ("X", "Y" or "Z"), `axis_min`,
`axis_max` and `bounding_polygon`, a list of points [x, y, z] of which the axis' own coordinate means nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from utils.registry import ConfigError


@dataclass
class CropVolume:
    """A prism.

    Attributes:
        axis: 0, 1 or 2, along which it stands.
        lowest, highest: on that axis.
        polygon: [K, 2] outline in the two other coordinates, in their order.
    """

    axis: int
    lowest: float
    highest: float
    polygon: Float64[Tensor, "K 2"]

    def holds(self, points: Float[Tensor, "N 3"]) -> Bool[Tensor, "N"]:
        """[N] which points lie inside."""
        height = points[:, self.axis]
        x, y = points[:, [other for other in range(3) if other != self.axis]].unbind(-1)
        # A point is inside if a line from it to infinity meets the outline an odd number of times.
        is_inside = torch.zeros(len(points), dtype=torch.bool)
        for (ax, ay), (bx, by) in zip(self.polygon, self.polygon.roll(-1, dims=0), strict=True):
            is_beside = (ay > y) != (by > y)
            is_inside ^= is_beside & (x < ax + (y - ay) / (by - ay) * (bx - ax))
        return is_inside & (height >= self.lowest) & (height <= self.highest)


def read_crop_volume(path: Path) -> CropVolume:
    """The volume in a JSON file.

    Raises:
        ConfigError: the file is missing or broken.
    """
    try:
        content = json.loads(path.read_text())
        polygon = torch.tensor(content["bounding_polygon"], dtype=torch.float64)
        axis = "XYZ".index(content["orthogonal_axis"].upper())
        lowest, highest = float(content["axis_min"]), float(content["axis_max"])
        outline = polygon[:, [other for other in range(3) if other != axis]]
    except FileNotFoundError as error:
        raise ConfigError(f"--crop: {path} does not exist") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"--crop: {path} is no crop volume ({error}); expected JSON with orthogonal_axis, axis_min, axis_max and "
            "bounding_polygon"
        ) from error
    if len(outline) < 3 or not lowest < highest:
        raise ConfigError(f"--crop: {path} holds an empty volume; expected 3 or more points, and axis_min < axis_max")
    return CropVolume(axis, lowest, highest, outline)
