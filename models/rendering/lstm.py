"""`lstm`: a ray marcher that learns its steps (Sitzmann et al. 2019, Scene Representation Networks, sec. 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import renderers
from models.fields.implicit import ImplicitFunction, LatentFunction, Sizes
from models.rendering.background import Background
from models.rendering.renderer import Renderer
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays, Rendered

_LARGEST_GRADIENT = 10.0
"""Of a component of the LSTM's state: those of many steps in a row may explode."""


@renderers.register("lstm")
class LSTMRenderer(Renderer):
    """From its one point, each ray walks as far as an LSTM says that reads the features on the way; where it ends, its
    feature is shown.

    Steps may go backwards, and depth is where the ray ended, also where there is nothing. The published renderer moves
    the first point at random in evaluation, too, so that no two renders of a view are the same [D9]; here only
    training does. What the network shows is laid over the background by its opacity; published, without bg_color, it
    is the picture itself, so that the network has to show the background as well.
    """

    @dataclass
    class Config:
        num_raymarch_steps: int = 10
        """Steps of a ray."""
        init_depth: float = 17.0
        """How far all steps together lead before training, world units."""
        init_depth_noise_std: float = 5e-4
        """Standard deviation of the noise on the first point while training, world units."""
        hidden_size: int = 16
        """Length of the LSTM's state."""
        n_feature_channels: int = 256
        """Length of the implicit function's feature, its out_features."""
        bg_color: list[float] | None = None
        """Colour behind everything, one number or one per channel; null shows the backdrop of the ray."""

        def __post_init__(self) -> None:
            check_least(self, num_raymarch_steps=1, init_depth_noise_std=0, hidden_size=1, n_feature_channels=1)

    asks = LatentFunction

    def __init__(self, config: "LSTMRenderer.Config", sizes: Sizes, radius: float):
        super().__init__()
        self.config = config
        self.background = Background(config.bg_color, sizes, "model.renderer.bg_color")
        self.lstm = nn.LSTMCell(config.n_feature_channels, config.hidden_size)
        self.step = nn.Linear(config.hidden_size, 1)
        self._initialise()

    def forward(
        self, rays: Rays, points: RayPoints, functions: Sequence[ImplicitFunction], context: Context
    ) -> Rendered:
        (function,) = functions
        assert isinstance(function, LatentFunction)
        self._check(points, function)
        t = points.t
        if self.training:
            t = t + self.config.init_depth_noise_std * torch.randn_like(t)
        feature_at = function(rays, context)
        state = None
        for _ in range(self.config.num_raymarch_steps):
            state = self.lstm(feature_at(RayPoints(t))[:, 0], state)
            if state[0].requires_grad:
                state[0].register_hook(lambda gradient: gradient.clamp(-_LARGEST_GRADIENT, _LARGEST_GRADIENT))
            t = t + self.step(state[0])
        logit, color = function.pixel(rays, feature_at(RayPoints(t))[:, 0])
        opacity = torch.sigmoid(logit)
        return Rendered(
            color=torch.lerp(self.background(rays), color, opacity[:, None]),
            opacity=opacity,
            depth=t[:, 0],
            is_dense=True,
            n_samples=len(rays) * (self.config.num_raymarch_steps + 1),
        )

    def surface_color(
        self,
        points: Float[Tensor, "N 3"],
        normals: Float[Tensor, "N 3"],
        function: ImplicitFunction,
        context: Context,
    ) -> Float[Tensor, "N C"]:
        raise NotImplementedError("latent functions have no surface")

    def _initialise(self) -> None:
        """The LSTM remembers at first, and all rays take the same steps.

        The published helper for the weights of the state passes LSTMCell by [D8]; what it was meant to do, orthogonal
        weights of the state, He's of the input and no other bias, is done here.
        """
        n = self.config.hidden_size
        nn.init.kaiming_normal_(self.lstm.weight_ih)
        nn.init.orthogonal_(self.lstm.weight_hh)
        for bias in (self.lstm.bias_ih, self.lstm.bias_hh):
            nn.init.zeros_(bias)
            nn.init.ones_(bias[n : 2 * n])  # of the forget gate
        nn.init.normal_(self.step.weight, std=1e-3)
        nn.init.constant_(self.step.bias, self.config.init_depth / self.config.num_raymarch_steps)

    def _check(self, points: RayPoints, function: LatentFunction) -> None:
        if points.n_points != 1:
            raise ConfigError(
                f"model.ray_sampler gives {points.n_points} points a ray, but lstm begins at one; set "
                "n_pts_per_ray_training and n_pts_per_ray_evaluation to 1"
            )
        n = self.config.n_feature_channels
        if function.n_features != n:
            raise ConfigError(
                f"model.renderer.n_feature_channels is {n}, but the implicit function's out_features is "
                f"{function.n_features}; set them to the same number"
            )
