"""`gain`: what exposure and white balance have done to each photograph, learnt beside the model.

Corrections change what the model renders into what a camera made of it, in training only: views are scored, filmed and
textured as the model sees them.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasets.views import Views
from systems import exposures
from utils.registry import ConfigError
from utils.types import Rays, Rendered


@exposures.register("gain")
class Gain(nn.Module):
    """A factor per photograph and channel, after the affine colours of Rematas et al. 2022, Urban Radiance Fields.

    Exposure is what the three channels have in common, white balance the rest; under a gamma curve both stay factors.
    Their logarithms are 0 at the start, and on average over all photographs throughout, or the model could darken while
    all factors grow. A held-out view is thus expected to be exposed as the photographs are on average.
    """

    @dataclass
    class Config:
        lr: float = 0.02
        """Learning rate of the logarithms; the scheduler moves it as it does all others."""
        rows: int = 4096
        """Largest number of photographs."""

    def __init__(self, config: "Gain.Config"):
        super().__init__()
        self.config = config
        # As many rows as there may be, because a checkpoint is loaded before anyone has counted photographs.
        self.log_gain = nn.Parameter(torch.zeros(config.rows, 3))

    def groups(self) -> list[dict[str, object]]:
        """Parameters for an optimiser."""
        return [{"params": [self.log_gain], "name": "exposure", "lr": self.config.lr}]

    def gains(self, n: int) -> Float[Tensor, "n 3"]:
        """Factors of n photographs, 1 in the geometric mean.

        Raises:
            ConfigError: there are more photographs than rows.
        """
        if n > len(self.log_gain):
            raise ConfigError(f"system.exposure.rows is {len(self.log_gain)}, but there are {n} photographs; set it so")
        log_gain = self.log_gain[:n]
        return torch.exp(log_gain - log_gain.mean(0))

    def forward(self, rendered: Rendered, rays: Rays, views: Views) -> Rendered:
        """What cameras made of what was rendered.

        Args:
            rendered: colours as the model sees them.
            rays: of these views.
            views: all that are trained on. Where their masks cut the object out, no camera has seen the backdrop.
        """
        if rendered.color.shape[1] != 3:
            raise ConfigError("system.exposure corrects colours, but the model renders features; remove it")
        is_cut_out = views.apply_mask and views.has_mask
        gain = self.gains(len(views)).index_select(0, rays.view)
        return _exposed(rendered, gain, rays.backdrop if is_cut_out else torch.zeros_like(rays.backdrop))


def _exposed(rendered: Rendered, gain: Float[Tensor, "R 3"], backdrop: Float[Tensor, "R 3"]) -> Rendered:
    """The same with its colours, and those of earlier passes, multiplied, but for what shines through of a backdrop."""
    through = 1 - rendered.opacity
    if rendered.background is not None:
        through = through * (1 - rendered.background.opacity)
    plain = through[:, None] * backdrop
    coarse = None if rendered.coarse is None else _exposed(rendered.coarse, gain, backdrop)
    return replace(rendered, color=plain + gain * (rendered.color - plain), coarse=coarse)
