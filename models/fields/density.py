"""`volume-density`: how opaque space is, per unit of length."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from models import encodings, geometries, networks
from models.fields.activations import get_activation
from models.fields.encodings import HashGrid
from models.fields.isosurface import IsosurfaceConfig
from models.fields.mlp import MLP
from models.fields.network import EncodedNetwork
from utils.config import slot
from utils.contraction import Contraction, contract


@geometries.register("volume-density")
class VolumeDensity(nn.Module):
    """A density with a feature vector for the texture; the feature's first channel is the raw density."""

    @dataclass
    class Config:
        radius: float = 1.0
        """Half side of the box, or radius of the uncontracted ball, world units."""
        feature_dim: int = 16
        """Length of the feature vector."""
        density_activation: str | None = None
        """Activation that makes the raw output a density."""
        density_bias: float = 0.0
        """Added to the raw output before the activation."""
        feature_activation: str | None = None
        """Activation of the whole feature vector."""
        xyz_encoding_config: object = slot(encodings, default=HashGrid.Config)
        """Encoding of positions."""
        mlp_network_config: object = slot(networks, default=MLP.Config)
        """Network from encoding to feature."""
        isosurface: IsosurfaceConfig | None = field(default_factory=lambda: IsosurfaceConfig(threshold=5.0))
        """Marching cubes options; null for a field that is never meshed."""
        weights: str | None = None
        """State dict to start this field from."""

    def __init__(self, config: "VolumeDensity.Config", contraction: Contraction):
        super().__init__()
        self.config = config
        self.radius = config.radius
        self.contraction: Contraction = contraction
        self.n_features = config.feature_dim
        self.isosurface = config.isosurface
        self.density_activation = get_activation(config.density_activation)
        self.density_bias = config.density_bias
        self.feature_activation = get_activation(config.feature_activation)
        self.network = EncodedNetwork(config.xyz_encoding_config, config.mlp_network_config, config.feature_dim)

    def update(self, step: int) -> None:
        self.network.update(step)

    def forward(self, points: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N F"]]:
        """Density (inverse world units) and feature at world points."""
        feature = self.network(contract(points, self.radius, self.contraction))
        feature = feature.float()  # mixed precision is for the network alone
        density = self.density_activation(feature[:, 0] + self.density_bias)
        return density, self.feature_activation(feature)

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Density alone."""
        raw = self.network(contract(points, self.radius, self.contraction), n_outputs=1)[:, 0].float()
        return self.density_activation(raw + self.density_bias)

    def level(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Negative where denser than the isosurface's threshold."""
        if self.isosurface is None:
            raise ValueError("this field has no isosurface options; give model.geometry.isosurface to mesh it")
        return self.isosurface.threshold - self.density(points)
