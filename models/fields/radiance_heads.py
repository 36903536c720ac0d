"""From the last layer of a trunk to density and colour (Mildenhall et al. 2020, NeRF, fig. 7)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import FieldOutput
from utils.types import Rays


class RadianceHeads(nn.Module):
    """Density from a trunk's output, and colour in [0, 1] from it and harmonics of the direction.

    Args:
        n_inputs: width of the trunk.
        n_hidden: width of the hidden layer of the colour.
        n_frequencies: of the harmonics.
        n_channels: of the colour.
    """

    def __init__(self, n_inputs: int, n_hidden: int, n_frequencies: int, n_channels: int):
        super().__init__()
        self.direction = HarmonicEmbedding(n_frequencies)
        self.intermediate = nn.Linear(n_inputs, n_inputs)
        self.density = nn.Linear(n_inputs, 1)
        self.color_hidden = nn.Linear(n_inputs + self.direction.n_outputs, n_hidden)
        self.color = nn.Linear(n_hidden, n_channels)
        for layer in (self.intermediate, self.density):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.density.bias)

    def forward(self, hidden: Float[Tensor, "R P H"], rays: Rays) -> FieldOutput:
        """Answers for the outputs of a trunk at the points of rays."""
        return FieldOutput(self.density(hidden)[..., 0], self._color(hidden, rays))

    def _color(self, hidden: Float[Tensor, "R P H"], rays: Rays) -> Float[Tensor, "R P C"]:
        """The two layers before the first activation are multiplied with each other, not one after the other with
        every point; the share of the direction is multiplied once per ray."""
        width = hidden.shape[-1]
        of_trunk, of_direction = self.color_hidden.weight[:, :width], self.color_hidden.weight[:, width:]
        bias = torch.addmv(self.color_hidden.bias, of_trunk, self.intermediate.bias)
        per_ray = F.linear(self.direction(F.normalize(rays.directions, dim=-1)), of_direction, bias)
        per_point = F.linear(hidden, of_trunk @ self.intermediate.weight)
        return torch.sigmoid(self.color(torch.relu_(per_point + per_ray[:, None])))
