"""Textures: colour from a feature, with or without the direction of view."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from models import encodings, networks, textures
from models.fields.activations import get_activation
from models.fields.encodings import Encoding, SphericalHarmonics
from models.fields.mlp import MLP
from utils.config import slot
from utils.registry import ConfigError


@textures.register("volume-radiance")
class VolumeRadiance(nn.Module):
    """Colour that depends on the direction of view."""

    @dataclass
    class Config:
        input_feature_dim: int = 16
        """Length of the feature plus whatever else the model passes (NeuS adds the normal's 3)."""
        dir_encoding_config: object = slot(encodings, default=SphericalHarmonics.Config)
        """Encoding of directions."""
        mlp_network_config: object = slot(networks, default=MLP.Config)
        """Network from feature, direction and extras to colour."""
        color_activation: str | None = None
        """Activation of the colour on top of the network's own."""
        weights: str | None = None
        """State dict to start this texture from."""

    uses_extras = True

    def __init__(self, config: "VolumeRadiance.Config"):
        super().__init__()
        self.config = config
        self.n_inputs = config.input_feature_dim
        self.encoding: Encoding = encodings.make(config.dir_encoding_config, 3)
        self.network: MLP = networks.make(config.mlp_network_config, self.n_inputs + self.encoding.n_outputs, 3)
        self.color_activation = get_activation(config.color_activation)

    def update(self, step: int) -> None:
        self.encoding.update(step)

    def forward(
        self, feature: Float[Tensor, "N F"], directions: Float[Tensor, "N 3"], *extras: Float[Tensor, "N _"]
    ) -> Float[Tensor, "N 3"]:
        """Colour seen along unit `directions` (from the camera to the point)."""
        encoded = self.encoding((directions + 1) / 2)
        return self.color_activation(self.network(feature, encoded, *extras).float())


@textures.register("volume-color")
class VolumeColor(nn.Module):
    """Colour that is the same from every direction."""

    @dataclass
    class Config:
        input_feature_dim: int = 16
        """Length of the feature."""
        mlp_network_config: object = slot(networks, default=MLP.Config)
        """Network from feature to colour."""
        color_activation: str | None = None
        """Activation of the colour on top of the network's own."""
        weights: str | None = None
        """State dict to start this texture from."""

    uses_extras = False

    def __init__(self, config: "VolumeColor.Config"):
        super().__init__()
        self.config = config
        self.n_inputs = config.input_feature_dim
        self.network: MLP = networks.make(config.mlp_network_config, self.n_inputs, 3)
        self.color_activation = get_activation(config.color_activation)

    def update(self, step: int) -> None:
        pass

    def forward(
        self, feature: Float[Tensor, "N F"], directions: Float[Tensor, "N 3"], *extras: Float[Tensor, "N _"]
    ) -> Float[Tensor, "N 3"]:
        """Colour; directions and extras are accepted for the sake of one signature and have no part in it."""
        return self.color_activation(self.network(feature).float())


def check_width(where: str, texture: VolumeRadiance | VolumeColor, n_given: int, source: str) -> None:
    """Says what a texture expects and what it would get.

    Args:
        where: full key of the texture.
        n_given: numbers that it would get beside the direction.
        source: what they are, for the error.

    Raises:
        ConfigError: they differ.
    """
    if texture.n_inputs != n_given:
        raise ConfigError(
            f"{where}.input_feature_dim is {texture.n_inputs}, but the model passes {n_given} numbers ({source}); "
            f"set it to {n_given}"
        )
