"""What `nerf-mlp` and `nerformer` share: options, and the way from the last layer of a trunk to density and colour
(Mildenhall et al. 2020, NeRF, fig. 7)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.fields.harmonics import HarmonicEmbedding
from models.fields.implicit import FieldOutput, Sizes
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Rays


@dataclass
class RadianceConfig:
    """Options of a trunk and its heads."""

    n_harmonic_functions_xyz: int = 10
    """Frequencies of positions."""
    n_harmonic_functions_dir: int = 4
    """Frequencies of directions."""
    n_hidden_neurons_xyz: int = 256
    """Width of the trunk."""
    n_hidden_neurons_dir: int = 128
    """Width of the hidden layer of the colour."""
    n_layers_xyz: int = 8
    """Layers of the trunk."""
    append_xyz: list[int] = field(default_factory=lambda: [5])
    """Layers of the trunk, counted from 0, that see its input again."""
    input_xyz: bool = True
    """Whether the trunk sees positions, not only what else is known of a point or its scene."""
    use_integrated_positional_encoding: bool = False
    """Whether harmonics are averaged over the cone of the pixel (Barron et al. 2021, mip-NeRF, sec. 3.1)."""

    def __post_init__(self) -> None:
        check_least(self, n_harmonic_functions_xyz=0, n_harmonic_functions_dir=0)
        check_least(self, n_hidden_neurons_xyz=1, n_hidden_neurons_dir=1, n_layers_xyz=1)
        if any(not 0 < layer < self.n_layers_xyz for layer in self.append_xyz):
            raise ConfigError(
                f"append_xyz is {self.append_xyz}; expected layers from 1 to {self.n_layers_xyz - 1} (n_layers_xyz - 1)"
            )
        if self.use_integrated_positional_encoding and not self.input_xyz:
            raise ConfigError("use_integrated_positional_encoding has no effect without input_xyz; remove one")

    def n_inputs(self, n_position: int, sizes: Sizes) -> int:
        """Numbers that the trunk sees of a point whose embedding has `n_position`.

        Raises:
            ConfigError: there are none.
        """
        n = n_position * self.input_xyz + sizes.n_pooled + sizes.n_code
        if n == 0:
            raise ConfigError(
                "model.implicit_function.input_xyz is false, so that the network sees nothing; set it to true or give "
                "model.global_encoder"
            )
        return n


class RadianceHeads(nn.Module):
    """Density from a trunk's output, and colour in [0, 1] from it and harmonics of the direction.

    Args:
        config: of the trunk.
        n_channels: of the colour.
    """

    def __init__(self, config: RadianceConfig, n_channels: int):
        super().__init__()
        width, n_hidden = config.n_hidden_neurons_xyz, config.n_hidden_neurons_dir
        self.direction = HarmonicEmbedding(config.n_harmonic_functions_dir)
        self.intermediate = nn.Linear(width, width)
        self.density = nn.Linear(width, 1)
        self.color_hidden = nn.Linear(width + self.direction.n_outputs, n_hidden)
        self.color = nn.Linear(n_hidden, n_channels)
        for layer in (self.intermediate, self.density):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.density.bias)

    def forward(self, hidden: Float[Tensor, "R P H"], rays: Rays) -> FieldOutput:
        """Answers for the outputs of a trunk at the points of rays."""
        return FieldOutput(self.density(hidden)[..., 0], self.colors(hidden, self.of_directions(rays)[:, None]))

    def of_directions(self, rays: Rays) -> Float[Tensor, "R K"]:
        """What the direction of a ray adds to the hidden layer of the colour, once for all of its points."""
        of_trunk, of_direction = self._color_weights()
        bias = torch.addmv(self.color_hidden.bias, of_trunk, self.intermediate.bias)
        return F.linear(self.direction(F.normalize(rays.directions, dim=-1)), of_direction, bias)

    def colors(self, hidden: Float[Tensor, "*B H"], of_direction: Float[Tensor, "..."]) -> Float[Tensor, "*B C"]:
        """Colours from the outputs of a trunk and what `of_directions` says, [*B, K] or of a shape that spreads to it.

        The two layers before the first activation are multiplied with each other, not one after the other with every
        point.
        """
        total = F.linear(hidden, self._color_weights()[0] @ self.intermediate.weight) + of_direction
        return torch.sigmoid(self.color(torch.relu_(total)))

    def _color_weights(self) -> tuple[Float[Tensor, "K H"], Float[Tensor, "K D"]]:
        """Of the trunk and of the direction."""
        width = self.intermediate.out_features
        return self.color_hidden.weight[:, :width], self.color_hidden.weight[:, width:]
