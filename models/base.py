"""What every model offers, and the options all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.fields.isosurface import IsosurfaceConfig
from models.ops.dispatch import Backend
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Rays, Rendered


@dataclass
class ModelConfig:
    """Options of every model."""

    radius: float = 1.5
    """Half side of the box that holds the object, world units."""
    train_num_rays: int = 256
    """Rays of the first training step, per device."""
    batch_image_sampling: bool = True
    """Whether the rays of a step come from all images; otherwise from one."""
    pixel_sampling: Literal["uniform", "mask"] = "uniform"
    """Which pixels a step draws: any, or those that the object covers by half or more."""
    ray_chunk: int = 32768
    """Rays rendered at once in evaluation."""
    background_color: Literal["white", "black", "random", "random-per-ray"] = "white"
    """Colour behind everything while training; `random` draws one a step. Evaluation is on white, or on black."""
    output_rasterized_mc: bool = False
    """Whether what the rays of a step saw is kept as a picture, save/preview.png, whenever training logs. They must
    come from one image."""
    weights: str | None = None
    """State dict to start the model from."""

    def __post_init__(self) -> None:
        check_least(self, train_num_rays=1, ray_chunk=1)
        if self.output_rasterized_mc and self.batch_image_sampling:
            raise ConfigError("output_rasterized_mc needs rays of one image; set batch_image_sampling=false")
        if not self.radius > 0:
            raise ConfigError(f"radius is {self.radius}; expected more than 0")

    @property
    def sees_background(self) -> bool:
        """Whether what lies beyond the object is learnt, too."""
        return False


@dataclass
class MarchingConfig(ModelConfig):
    """Options of models that march through an occupancy grid."""

    num_samples_per_ray: int = 1024
    """Steps along the diagonal of the box; the number of samples of a ray follows from the occupied cells."""
    max_train_num_rays: int = 8192
    """Largest number of rays of a training step, per device."""
    samples_per_step: int | None = None
    """Samples that a training step aims at, per device; null means train_num_rays times the samples per ray."""
    dynamic_ray_sampling: bool = True
    """Whether the number of rays follows the number of samples, so that a step costs the same throughout."""
    randomized: bool = True
    """Whether samples are jittered along their rays while training."""
    grid_prune: bool = True
    """Whether empty space is skipped."""
    grid_prune_occ_thre: float = 0.01
    """Opacity of a march step below which a cell counts as empty."""
    learned_background: bool = False
    """Whether what lies beyond the object is learnt, too."""
    backend: Backend = "auto"
    """Implementation of marching and compositing; a named one never falls back to another."""

    @property
    def sees_background(self) -> bool:
        return self.learned_background

    def steps(self, n_samples_per_ray: int) -> "StepSize":
        """Rays of a training step, given the most samples that a ray may have."""
        n_samples = self.samples_per_step or self.train_num_rays * n_samples_per_ray
        return StepSize(self.train_num_rays, self.max_train_num_rays, n_samples, self.dynamic_ray_sampling)


@dataclass(frozen=True)
class StepSize:
    """Rays of a training step, per device.

    Attributes:
        n_rays: of the first step.
        limit: largest number.
        n_samples: samples a step aims at.
        is_dynamic: whether the number of rays follows the number of samples; otherwise it stays.
    """

    n_rays: int
    limit: int
    n_samples: int
    is_dynamic: bool = True


class Model(nn.Module, ABC):
    """Renders rays; its parts are reachable by dotted paths, which optimiser groups name.

    Attributes:
        quantities: what `Rendered` can carry in training besides colour, opacity and depth; losses ask for them.
        asked: which of them losses do ask for; a model may leave out others that cost.
        is_distance: whether `level` is a signed distance in world units.
    """

    quantities: frozenset[str]
    is_distance: bool

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.radius = config.radius
        self.asked: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def isosurface(self) -> IsosurfaceConfig | None:
        """Options of the mesh, or None where the field has no surface."""

    @property
    @abstractmethod
    def step_size(self) -> StepSize:
        """Rays of a training step."""

    @abstractmethod
    def update(self, step: int, seed: int) -> None:
        """Brings everything that follows the training step up to date; occupancy only in training mode."""

    def arrange(self, step: int) -> Sequence[nn.Parameter]:
        """Called before every training step, after `update`: parameters may get another meaning then.

        Returns:
            Those that did; what an optimiser remembers of them is of no use any more.
        """
        return ()

    def know_scenes(self, names: Sequence[str]) -> None:
        """Called before rays come, with the names of the sequences that `Rays.scene` counts."""

    @abstractmethod
    def forward(self, rays: Rays) -> Rendered:
        """What is seen along rays, with everything losses need in training mode."""

    @abstractmethod
    def level(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Negative inside the surface that is meshed, zero on it."""

    def may_hold_surface(self, points: Float[Tensor, "N 3"], reach: float) -> Bool[Tensor, "N"]:
        """Whether the surface that is meshed may pass within `reach` of points, axis by axis, world units."""
        return torch.ones_like(points[:, 0], dtype=torch.bool)

    @abstractmethod
    def surface_color(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Colour in [0, 1] of surface points seen along their normals."""

    @torch.no_grad()
    def render(self, rays: Rays, tell: Callable[[float], None] = lambda share: None) -> Rendered:
        """The same for any number of rays, in pieces of `ray_chunk`, without what only losses need.

        Args:
            rays: at least one.
            tell: is told the finished share, in [0, 1], after each piece.
        """
        parts = []
        for start in range(0, len(rays), self.config.ray_chunk):
            part = rays[start : start + self.config.ray_chunk]
            parts.append(_pixels_only(self(part)))
            tell((start + len(part)) / len(rays))
        return Rendered.cat(parts)

    def load_weights(self) -> None:
        """Loads the state dicts that `weights` keys name, those of parts before those of what holds them."""
        for part in reversed([*self.modules()]):
            path = getattr(getattr(part, "config", None), "weights", None)
            if path is None:
                continue
            if not Path(path).is_file():
                raise ConfigError(f"weights: {path} does not exist; give the path of a state dict saved by torch.save")
            part.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))


def _pixels_only(rendered: Rendered) -> Rendered:
    background = rendered.background
    return replace(
        rendered,
        samples=None,
        weights=None,
        sdf=None,
        gradient=None,
        laplacian=None,
        probes=None,
        neighbors=None,
        sharpness=None,
        at_points=None,
        code_norm=None,
        density_grid=None,
        coarse=None,
        background=None if background is None else _pixels_only(background),
    )
