"""A capture: posed photographs of one scene as all readers but `blender` find them; few files name splits."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets.cameras import Cameras
from datasets.normalize import ball
from datasets.photograph_config import PhotographConfig
from datasets.photographs import Shot, read_photographs
from datasets.points import SparsePoints
from datasets.region import region_of_interest
from datasets.splits import SplitConfig, split_rows
from datasets.trajectories import make_path, path_views
from datasets.views import Views


@dataclass(kw_only=True)
class CaptureConfig(PhotographConfig, SplitConfig):
    """Keys of readers of captures."""

    root_dir: str
    """Folder of the data set."""


class Capture:
    """Photographs before they are read, divided into splits; rows that two splits share are read once.

    Args:
        shots: sorted by name, poses in scene coordinates.
        config: size of the images, splits, camera path.
        to_dataset: [4, 4] similarity, scene to dataset.
        points: sparse points in scene coordinates, `view` counting the shots, `pixel` in units of width and height of
            the image, so that it is the same at every size.
        fits_masks: whether the region of interest that masks tell, where there are any, becomes the unit ball.
        fills_unit_ball: whether the data set says that the object does.
        bounds: [N, 2] depths between which each shot shows things, scene units, or None if unknown.
        lists: rows of the shots of "train", "val" and "test" where files name splits; None leaves it to the config.
        scene_names: of the sequences that the shots' `scene` counts, or of the only one; None where they have none.
    """

    def __init__(
        self,
        shots: list[Shot],
        config: CaptureConfig,
        to_dataset: Float64[Tensor, "4 4"],
        points: SparsePoints | None = None,
        fits_masks: bool = False,
        fills_unit_ball: bool = False,
        bounds: Float[Tensor, "N 2"] | None = None,
        lists: Mapping[str, Sequence[int]] | None = None,
        scene_names: list[str] | None = None,
    ):
        self._shots, self._config, self._to_dataset, self._points = shots, config, to_dataset, points
        self._fits_masks, self._fills_unit_ball = fits_masks, fills_unit_ball
        self._bounds, self._lists, self._scene_names = bounds, lists, scene_names
        self._read = functools.cache(self._read_rows)
        self._place = functools.cache(self._place_rows)

    def views(self, split: str) -> Views:
        """The views of split "train", "val" or "test"; the same object where splits are the same.

        Raises:
            ConfigError: something is missing, broken or contradictory; the message names it.
        """
        return self._place(self._rows(split))

    def path(self) -> Views | None:
        """A camera path for the video, or None where the test split is one already."""
        return self._path() if self._rows("test") else None

    def _rows(self, split: str) -> tuple[int, ...]:
        config, source = self._config, self._config.source(split)
        if self._lists is not None:
            return tuple(self._lists[source])
        return tuple(split_rows(len(self._shots), source, config.eval_every))

    def _path(self) -> Views:
        """Around the first sequence, from its first moment to its last."""
        config, train = self._config, self.views("train")
        is_first = slice(None) if train.scene is None else train.scene == train.scene[0]
        cameras = train.cameras.map(lambda part: part[is_first])
        poses = make_path(config.test_trajectory, cameras.pose, config.n_test_traj_steps)
        scene = None if train.scene is None else train.scene[:1].repeat(len(poses))
        time = None
        if train.time is not None:
            first, last = train.time[is_first].aminmax()
            time = torch.linspace(first.item(), last.item(), len(poses))
        path = path_views(poses, cameras, config.test_traj_size)
        return replace(path, scene=scene, scene_names=train.scene_names, time=time, to_dataset=train.to_dataset)

    def _place_rows(self, rows: tuple[int, ...]) -> Views:
        """Photographs of these rows, or the path without any, with the region of interest as the unit ball."""
        if not rows:
            return self._path()
        views = self._read(rows)
        if not (self._fits_masks and views.has_mask):
            return views
        center, radius = self._region
        pose, points = views.cameras.pose.double(), views.points
        pose[:, :, 3] = (pose[:, :, 3] - center) / radius
        if points is not None:
            points = replace(points, position=((points.position - center) / radius).float())
        lengths = {key: getattr(views, key) for key in ("depth", "bounds")}
        return replace(
            views,
            cameras=replace(views.cameras, pose=pose.float()),
            points=points,
            to_dataset=self._to_dataset @ ball(center, radius),
            **{key: None if value is None else value / radius for key, value in lengths.items()},
        )

    @functools.cached_property
    def _region(self) -> tuple[Float64[Tensor, "3"], float]:
        """What the masks of the training views tell, whatever split is asked for."""
        return region_of_interest(self._read(self._rows("train")))

    def _read_rows(self, rows: tuple[int, ...]) -> Views:
        shots = [self._shots[row] for row in rows]
        views = read_photographs(shots, self._config, f"Reading {len(rows)} photographs")
        points = None if self._points is None else self._seen(self._points, rows, views.cameras)
        known = {"to_dataset": self._to_dataset, "fills_unit_ball": self._fills_unit_ball}
        bounds = None if self._bounds is None else self._bounds[list(rows)]
        return replace(views, points=points, bounds=bounds, scene_names=self._scene_names, **known)

    def _seen(self, points: SparsePoints, rows: tuple[int, ...], cameras: Cameras) -> SparsePoints:
        """The points with what these shots observed of them, in pixels at the size of their images."""
        place = torch.full((len(self._shots),), -1)
        place[list(rows)] = torch.arange(len(rows))
        view = place[points.view]
        kept = view >= 0
        pixel = points.pixel[kept] * cameras.size[view[kept]]
        return replace(points, view=view[kept], point=points.point[kept], pixel=pixel)
