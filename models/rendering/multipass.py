"""`multipass-ea`: one function after another, each asked where the one before it saw something."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from models import raymarchers, renderers
from models.fields.implicit import ImplicitFunction, RadianceFunction, Sizes
from models.rendering.raymarchers import EmissionAbsorption, RayMarcher
from models.rendering.refinement import refine
from models.rendering.renderer import Renderer
from utils.config import check_least, slot
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays, Rendered


@renderers.register("multipass-ea")
class MultiPass(Renderer):
    """Accumulates a density field in passes (Mildenhall et al. 2020, NeRF, sec. 5.2)."""

    @dataclass
    class Config:
        raymarcher: object = slot(raymarchers, default=EmissionAbsorption.Config)
        """How densities become weights."""
        n_pts_per_ray_fine_training: int = 64
        """Points that a pass adds to those of the pass before it, while training."""
        n_pts_per_ray_fine_evaluation: int = 64
        """The same in evaluation."""
        stratified_sampling_coarse_training: bool = True
        """Whether these points are drawn at random while training."""
        stratified_sampling_coarse_evaluation: bool = False
        """Whether they are in evaluation."""
        append_coarse_samples_to_fine: bool = True
        """Whether a pass keeps the points of the pass before it."""
        density_noise_std_train: float = 0.0
        """Standard deviation of noise on raw densities while training, inverse world units."""
        return_weights: bool = False
        """Whether the weights of the points are there for losses such as lambda_distortion."""
        blurpool_weights: bool = False
        """Whether weights are widened before points are drawn by them (mip-NeRF)."""
        sample_pdf_eps: float = 1e-5
        """Added to each weight before points are drawn by them."""

        def __post_init__(self) -> None:
            check_least(self, n_pts_per_ray_fine_training=1, n_pts_per_ray_fine_evaluation=1)
            check_least(self, density_noise_std_train=0)
            if self.sample_pdf_eps <= 0:
                raise ConfigError(f"sample_pdf_eps is {self.sample_pdf_eps}; expected more than 0")

    asks = RadianceFunction
    max_passes = None

    def __init__(self, config: "MultiPass.Config", sizes: Sizes, radius: float):
        super().__init__()
        self.config = config
        self.raymarcher: RayMarcher = raymarchers.make(config.raymarcher, sizes)
        self.quantities = frozenset({"samples", "weights"} if config.return_weights else ())

    def forward(
        self, rays: Rays, points: RayPoints, functions: Sequence[ImplicitFunction], context: Context
    ) -> Rendered:
        config = self.config
        least = 1 if len(functions) == 1 else 3
        if points.n_points < least:
            raise ConfigError(
                f"model.ray_sampler gives {points.n_points} points a ray; multipass-ea with {len(functions)} passes "
                f"needs {least} or more, set n_pts_per_ray_training and n_pts_per_ray_evaluation"
            )
        noise = config.density_noise_std_train if self.training else 0.0
        # Noise gives points of empty space a part in the picture.
        context = replace(context, only_dense=noise == 0 and self.raymarcher.config.density_relu)
        rendered, weights = None, None
        for function in functions:
            if weights is not None:
                points = self._refined(points, weights)
            seen, weights = self.raymarcher(rays, points, function(rays, points, context), noise)
            if config.return_weights:
                seen.samples, seen.weights = points.samples(), weights.flatten()
            if rendered is not None:
                seen.coarse, seen.n_samples = rendered, seen.n_samples + rendered.n_samples
            rendered = seen
        assert rendered is not None
        return rendered

    def surface_color(
        self,
        points: Float[Tensor, "N 3"],
        normals: Float[Tensor, "N 3"],
        function: ImplicitFunction,
        context: Context,
    ) -> Float[Tensor, "N C"]:
        assert isinstance(function, RadianceFunction)
        return function.at(points, -normals, context).feature[:, 0]

    def _refined(self, points: RayPoints, weights: Float[Tensor, "R P"]) -> RayPoints:
        config = self.config
        n = config.n_pts_per_ray_fine_training if self.training else config.n_pts_per_ray_fine_evaluation
        is_random = (
            config.stratified_sampling_coarse_training
            if self.training
            else config.stratified_sampling_coarse_evaluation
        )
        return refine(
            points,
            weights.detach(),
            n,
            is_random,
            config.append_coarse_samples_to_fine,
            config.blurpool_weights,
            config.sample_pdf_eps,
        )
