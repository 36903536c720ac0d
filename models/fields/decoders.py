"""Decoders: what features of a voxel grid mean, a density or a colour.

All are built as `decoder(config, n_inputs, n_outputs, activation)`, where the activation is what the quantity wants.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import decoders
from models.fields.activations import get_activation
from utils.registry import ConfigError


class Decoder(nn.Module, ABC):
    """A function of features."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """Outputs of N features."""


@decoders.register("mlp")
class MLPDecoder(Decoder):
    """A deep network with skips.

    The last activation is that of the last layer and the others have rectifiers; in the published code it is the other
    way round [D20]. Its default width of the input, which fits nothing [D18], and that of the output follow from the
    owner.
    """

    @dataclass
    class Config:
        n_layers: int = 8
        """Linear layers."""
        hidden_dim: int = 256
        """Width of all but the last."""
        input_skips: list[int] = field(default_factory=lambda: [5])
        """Layers, counted from 0, that see the input again."""
        last_activation: str | None = None
        """Activation of the output; null takes relu for a density and sigmoid for a colour."""
        last_layer_bias_init: float | None = None
        """Bias of the last layer before training; null takes that of torch."""

        def __post_init__(self) -> None:
            wrong = [layer for layer in self.input_skips if not 0 < layer < self.n_layers]
            if wrong:
                raise ConfigError(
                    f"input_skips is {self.input_skips}; expected layers from 1 to {self.n_layers - 1} (n_layers - 1)"
                )

    def __init__(self, config: "MLPDecoder.Config", n_inputs: int, n_outputs: int, activation: str):
        super().__init__()
        self.skips = frozenset(config.input_skips)
        self.activation = get_activation(config.last_activation or activation)
        widths = [n_inputs, *[config.hidden_dim] * (config.n_layers - 1), n_outputs]
        layers = [
            nn.Linear(widths[row] + n_inputs * (row in self.skips), widths[row + 1]) for row in range(config.n_layers)
        ]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        if config.last_layer_bias_init is not None:
            nn.init.constant_(layers[-1].bias, config.last_layer_bias_init)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        *others, last = self.layers
        hidden = x
        for row, layer in enumerate(others):
            hidden = torch.relu_(layer(self._joined(hidden, x, row)))
        return self.activation(last(self._joined(hidden, x, len(others))))

    def _joined(self, hidden: Tensor, x: Tensor, row: int) -> Tensor:
        return torch.cat([hidden, x], dim=-1) if row in self.skips else hidden


@decoders.register("elementwise")
class ElementwiseDecoder(Decoder):
    """The features themselves, scaled, shifted and activated."""

    @dataclass
    class Config:
        scale: float = 1.0
        """What features are multiplied by."""
        shift: float = 0.0
        """What is added to that."""
        operation: str = "none"
        """Activation of the sum."""

    def __init__(self, config: "ElementwiseDecoder.Config", n_inputs: int, n_outputs: int, activation: str):
        super().__init__()
        if n_inputs != n_outputs:
            raise ConfigError(
                f"model.implicit_function: an elementwise decoder is given {n_inputs} numbers at a point, but has to "
                f"make {n_outputs}; set n_features of its grid to {n_outputs} and n_harmonic_functions to 0 (for "
                "directions to null), or choose the decoder mlp"
            )
        self.config = config
        self.operation = get_activation(config.operation)

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        return self.operation(x * self.config.scale + self.config.shift)
