"""What the models of the Implicitron family share: parts that YAML names, asked in one order.

rays -> code of their scene -> points -> renderer, which asks the implicit functions -> `Rendered`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import global_encoders, implicit_functions, ray_samplers, renderers
from models.base import Model, ModelConfig, StepSize
from models.conditioning.encoder import GlobalEncoder
from models.fields.implicit import ImplicitFunction, Sizes, rays_to
from models.fields.isosurface import IsosurfaceConfig
from models.fields.nerf_mlp import NerfMLP
from models.rendering.multipass import MultiPass
from models.rendering.ray_samplers import Adaptive, RaySampler
from models.rendering.renderer import Renderer
from utils.config import check_least, slot
from utils.registry import ConfigError
from utils.types import Context, Rays, Rendered

# Points at which functions are asked at once while a mesh is made.
_PIECE = 1 << 16


@dataclass
class ImplicitConfig(ModelConfig):
    """Options of every model of the family."""

    train_num_rays: int = 1024
    """Rays of a training step, per device."""
    pixel_sampling: Literal["uniform", "mask", "full-grid"] = "uniform"  # type: ignore[assignment]
    """Which pixels a step draws: any, those that the object covers by half or more, or all of one image."""
    ray_chunk: int = 1024
    """Rays rendered at once in evaluation; more are no faster, and each needs memory for all of its points."""
    render_features_dimensions: int = 3
    """Channels of what is rendered; other than 3 are features, which losses and metrics of colours do not know."""
    implicit_function: object = slot(implicit_functions, default=NerfMLP.Config)
    """What space is like."""
    ray_sampler: object = slot(ray_samplers, default=Adaptive.Config)
    """Where along rays the first pass looks."""
    renderer: object = slot(renderers, default=MultiPass.Config)
    """How answers of the functions become pixels."""
    global_encoder: object | None = slot(global_encoders, default=None)
    """One code per scene or moment that functions take beside positions; null for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, render_features_dimensions=1)
        if self.pixel_sampling == "full-grid" and self.batch_image_sampling:
            raise ConfigError("pixel_sampling is 'full-grid', all pixels of one image; set batch_image_sampling=false")


class ImplicitModel(Model):
    """A renderer and the implicit functions that it asks, coarse to fine."""

    def __init__(self, config: ImplicitConfig):
        super().__init__(config)
        self.config: ImplicitConfig = config
        self.global_encoder: GlobalEncoder | None = None
        if config.global_encoder is not None:
            self.global_encoder = global_encoders.make(config.global_encoder)
        n_code = self.global_encoder.n_outputs if self.global_encoder else 0
        sizes = Sizes(config.render_features_dimensions, n_code)
        self.ray_sampler: RaySampler = ray_samplers.make(config.ray_sampler, self.radius)
        self.renderer: Renderer = renderers.make(config.renderer, sizes, self.radius)
        self.functions = nn.ModuleList(self.make_functions(sizes))
        self._check_passes()
        passes = {"prev_stage_" * count for count in range(1, len(self.functions))}
        has_norm = self.global_encoder is not None and self.global_encoder.has_norm
        self.quantities = self.renderer.quantities | passes | ({"code_norm"} if has_norm else frozenset())
        self.quantities |= self.finest.quantities
        self.load_weights()

    @abstractmethod
    def make_functions(self, sizes: Sizes) -> Sequence[ImplicitFunction]:
        """One function per pass, coarse to fine."""

    @property
    def step_size(self) -> StepSize:
        n = self.config.train_num_rays
        return StepSize(n, n, n, is_dynamic=False)

    @property
    def finest(self) -> ImplicitFunction:
        """The function of the last pass."""
        function = self.functions[-1]
        assert isinstance(function, ImplicitFunction)
        return function

    @property
    def isosurface(self) -> IsosurfaceConfig | None:
        return self.finest.isosurface

    @property
    def is_distance(self) -> bool:  # type: ignore[override]
        return self.finest.is_distance

    def update(self, step: int, seed: int) -> None:
        for function in self.functions:
            assert isinstance(function, ImplicitFunction)
            function.update(step)

    def arrange(self, step: int) -> Sequence[nn.Parameter]:
        replaced: list[nn.Parameter] = []
        for function in self.functions:
            assert isinstance(function, ImplicitFunction)
            replaced += function.arrange(step)
        return replaced

    def know_scenes(self, names: Sequence[str]) -> None:
        if self.global_encoder is not None:
            self.global_encoder.know_scenes(names)

    def forward(self, rays: Rays) -> Rendered:
        if self.training and self.renderer.needs_mask and rays.mask is None:
            raise ConfigError(
                "model.renderer learns from masks, which the data set does not have; choose another renderer"
            )
        context = self.encode(rays)
        rendered = self.renderer(rays, self.ray_sampler(rays), list(self.functions), context)
        if self.training and "code_norm" in self.quantities:
            assert self.global_encoder is not None
            rendered.code_norm = self.global_encoder.norm()
        if self.training and "density_grid" in self.quantities:
            self._add_density_grids(rendered)
        return rendered

    def _add_density_grids(self, rendered: Rendered) -> None:
        stage: Rendered | None = rendered
        for function in reversed(self.functions):
            assert isinstance(function, ImplicitFunction) and stage is not None
            if "density_grid" in function.quantities:
                stage.density_grid = function.density_at_vertices()
            stage = stage.coarse

    def encode(self, rays: Rays) -> Context:
        """What is known about the scene of each ray."""
        return Context(None if self.global_encoder is None else self.global_encoder(rays))

    def level(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        pieces = [self.finest.level(piece, self._context_at(piece)) for piece in points.split(_PIECE)]
        return torch.cat(pieces) if pieces else points[:, 0]

    @torch.no_grad()
    def surface_color(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        pieces = [
            self.renderer.surface_color(place, normal, self.finest, self._context_at(place))[:, :3].clamp(0, 1)
            for place, normal in zip(points.split(_PIECE), normals.split(_PIECE), strict=True)
        ]
        return torch.cat(pieces) if pieces else points

    def _context_at(self, points: Float[Tensor, "N 3"]) -> Context:
        """Of free points, which belong to the first scene."""
        return self.encode(rays_to(points, torch.zeros_like(points)))

    def _check_passes(self) -> None:
        renderer, most = self.renderer, self.renderer.max_passes
        for function in self.functions:
            if not isinstance(function, renderer.asks):
                raise ConfigError(
                    f"model.renderer {type(renderer).__name__} asks for a {renderer.asks.__name__}, but "
                    f"{type(function).__name__} is a {type(function).__mro__[1].__name__}; choose another "
                    "model.implicit_function or model.renderer"
                )
        if most is not None and len(self.functions) > most:
            raise ConfigError(
                f"model.renderer {type(renderer).__name__} takes {most} pass, but the model has "
                f"{len(self.functions)}; lower the number of passes or choose model.renderer.name=multipass-ea"
            )
