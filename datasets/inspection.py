"""What is to be known of a scene before it is trained on: numbers measured on its views.

`datasets.inspection_report` puts them into words, `datasets.inspection_files` into pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from datasets.cameras import Cameras
from datasets.points import SparsePoints
from datasets.region import region_of_interest
from datasets.views import Views

N_PLACES = 16
"""Pixels along an edge of the grid in every image whose rays are looked at."""
SAME_PLACE, SAME_DIRECTION = 1e-3, 1e-3
"""Two cameras are twins if they are nearer than this share of their distance to the object and turned by fewer
radians."""


@dataclass
class Inspection:
    """Numbers of a scene; lengths in scene units, pixels at the size at which images are used.

    Attributes:
        splits: the views by split, "train" first; everything below is measured on that.
        radius: half side of the model's box.
        learned_background: whether the model learns what is beyond.
        center, reach: [3] and radius of the region of interest.
        share_met: share of the rays that meet the box.
        inside: names of cameras inside the box.
        averted: names of cameras in whose image the centre of the region is not.
        twins: names of pairs of cameras at one place that look the same way.
        parallax: largest distance of two cameras over their distance from the region, roughly.
        bend: how many pixels lenses move what they show, at most; 0 for pinholes.
        coverage: [V] share of every image that its mask covers, or None without masks.
        residual: [K] distances between observations of sparse points and their projections, or None without any.
    """

    splits: Mapping[str, Views]
    radius: float
    learned_background: bool
    center: Float[Tensor, "3"]
    reach: float
    share_met: float
    inside: list[str]
    averted: list[str]
    twins: list[tuple[str, str]]
    parallax: float
    bend: float
    coverage: Float[Tensor, "V"] | None
    residual: Float[Tensor, "K"] | None

    @property
    def train(self) -> Views:
        return self.splits["train"]


def inspect_scene(splits: Mapping[str, Views], radius: float, learned_background: bool) -> Inspection:
    """Measures the views of a scene.

    Args:
        splits: views by split; "train" must be there.
        radius: half side of the model's box, scene units.
        learned_background: whether the model learns what is beyond.
    """
    # Colours are not looked at, so they can stay where they are.
    views = replace(splits["train"], color=None, depth=None, normal=None).to("cpu")
    cameras, names = views.cameras, views.names
    center, reach = region_of_interest(views)
    center = center.float()
    view, pixel = _places(cameras.size)
    origins, directions = cameras.rays(view, pixel)
    position = cameras.pose[:, :, 3]
    return Inspection(
        splits=splits,
        radius=radius,
        learned_background=learned_background,
        center=center,
        reach=reach,
        share_met=_meets_box(origins, directions, radius).float().mean().item(),
        inside=_named(names, position.abs().amax(-1) < radius),
        averted=_named(names, ~_sees(cameras, center)),
        twins=_twins(cameras.pose, center, names),
        parallax=_parallax(position, center),
        bend=_bend(cameras, view, pixel, directions),
        coverage=None if views.alpha is None else _coverage(views),
        residual=None if views.points is None else _residual(cameras, views.points),
    )


def _places(size: Tensor) -> tuple[Tensor, Tensor]:
    """Views and pixels of a grid over every image, from border to border."""
    steps = torch.linspace(0, 1, N_PLACES)
    grid = torch.cartesian_prod(steps, steps)  # [N_PLACES^2, 2]
    pixel = (grid * (size[:, None] - 1)).round().long().view(-1, 2)
    return torch.arange(len(size)).repeat_interleave(len(grid)), pixel


def _meets_box(origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], radius: float) -> Tensor:
    """Which rays meet the cube of this half side around the origin (slab method)."""
    safe = torch.where(directions.abs() < 1e-9, 1e-9, directions)
    first, second = (-radius - origins) / safe, (radius - origins) / safe
    near, far = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
    return far > near.clamp_min(0)


def _sees(cameras: Cameras, point: Float[Tensor, "3"]) -> Tensor:
    """Which cameras have the point in their image."""
    view = torch.arange(len(cameras))
    pixel, depth = cameras.project(view, point.expand(len(cameras), 3))
    return (depth > 0) & (pixel >= 0).all(-1) & (pixel <= cameras.size).all(-1)


def _twins(pose: Float[Tensor, "V 3 4"], center: Float[Tensor, "3"], names: list[str]) -> list[tuple[str, str]]:
    position = pose[:, :, 3]
    distance = (position - center).norm(dim=-1).median().item()
    pairs = KDTree(position.numpy()).query_pairs(SAME_PLACE * distance, output_type="ndarray")
    first, second = torch.from_numpy(pairs).long().unbind(-1)
    # Of rotations that differ by a small angle, the columns differ by as much.
    is_same = (pose[first, :, :3] - pose[second, :, :3]).flatten(1).abs().amax(-1) < SAME_DIRECTION
    return sorted((names[a], names[b]) for a, b in zip(first[is_same].tolist(), second[is_same].tolist(), strict=True))


def _parallax(position: Float[Tensor, "V 3"], center: Float[Tensor, "3"]) -> float:
    extent = (position.amax(0) - position.amin(0)).norm()
    return (extent / (position - center).norm(dim=-1).median().clamp_min(1e-12)).item()


def _bend(cameras: Cameras, view: Tensor, pixel: Tensor, directions: Tensor) -> float:
    """Largest distance, in pixels, from where a pinhole with the same focal length would see what a pixel shows."""
    if cameras.distortion is None:
        return 0.0
    pinholes = Cameras(cameras.pose, cameras.focal, cameras.center, cameras.size)
    place, depth = pinholes.project(view, cameras.pose[view, :, 3] + directions)
    shift = (place - pixel - 0.5).norm(dim=-1)
    return shift[depth > 0].max().item()


def _coverage(views: Views) -> Float[Tensor, "V"]:
    assert views.alpha is not None
    images = views.alpha.split(views.offsets.diff().tolist())
    return torch.stack([image.float().mean() / 255 for image in images])


def _residual(cameras: Cameras, points: SparsePoints) -> Float[Tensor, "K"] | None:
    if not len(points.view):
        return None
    pixel, _ = cameras.project(points.view, points.position[points.point])
    return (pixel - points.pixel).norm(dim=-1)


def _named(names: list[str], is_meant: Tensor) -> list[str]:
    return [name for name, is_one in zip(names, is_meant.tolist(), strict=True) if is_one]
