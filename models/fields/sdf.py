"""`volume-sdf`: signed distance to a surface, negative inside, with its gradient in world units."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import encodings, geometries, networks
from models.fields.activations import get_activation
from models.fields.encodings import HashGrid, ProgressiveBandHashGrid
from models.fields.isosurface import IsosurfaceConfig
from models.fields.mlp import MLP
from models.fields.network import EncodedNetwork
from utils.config import slot
from utils.contraction import Contraction, contract
from utils.registry import ConfigError


@dataclass
class SDFOutput:
    """What the field says at N world points.

    Attributes:
        sdf: [N] signed distance, negative inside.
        gradient: [N, 3] its derivative with respect to world position.
        feature: [N, F] for the texture; the first channel is the raw distance.
        laplacian: [N] sum of its second derivatives, or None with analytic gradients.
    """

    sdf: Float[Tensor, "N"]
    gradient: Float[Tensor, "N 3"]
    feature: Float[Tensor, "N F"]
    laplacian: Float[Tensor, "N"] | None = None

    def split(self, n: int) -> tuple["SDFOutput", "SDFOutput"]:
        """The first `n` points and the others. Columns of feature-major arrays, which their gradients are then, too."""
        n_points = [n, len(self.sdf) - n]
        sdfs = self.sdf.split(n_points)
        gradients, features = (rows.T.split(n_points, dim=1) for rows in (self.gradient, self.feature))
        laplacians = (None, None) if self.laplacian is None else self.laplacian.split(n_points)
        parts = zip(sdfs, gradients, features, laplacians, strict=True)
        here, there = (SDFOutput(sdf, gradient.T, feature.T, bend) for sdf, gradient, feature, bend in parts)
        return here, there


@geometries.register("volume-sdf")
class VolumeSDF(nn.Module):
    """A signed distance field; the zero level is the surface.

    Analytic gradients are a closed form, so nothing is differentiated twice. Finite differences take six taps at
    `finite_difference_eps` (Li et al. 2023, Neuralangelo, sec. 3.2) and also give the Laplacian.

    Distance and feature are differentiable by position, and so are gradients by finite differences. Analytic ones on a
    hash grid count as constant there: see `EncodedNetwork.with_gradient`.
    """

    @dataclass
    class Config:
        radius: float = 1.0
        """Half side of the box, world units."""
        feature_dim: int = 13
        """Length of the feature vector, raw distance included."""
        grad_type: Literal["analytic", "finite_difference"] = "analytic"
        """How the gradient is taken."""
        finite_difference_eps: float | Literal["progressive"] = 1e-3
        """Distance of the taps and of neighbours in the tangent plane, world units; `progressive` follows the finest
        active level of the hash grid."""
        sdf_activation: str | None = None
        """Activation of the raw distance."""
        sdf_bias: float = 0.0
        """Added to the raw distance before its activation."""
        feature_activation: str | None = None
        """Activation of the whole feature vector."""
        xyz_encoding_config: object = slot(encodings, default=HashGrid.Config)
        """Encoding of positions."""
        mlp_network_config: object = slot(networks, default=MLP.Config)
        """Network from encoding to feature."""
        isosurface: IsosurfaceConfig | None = field(default_factory=IsosurfaceConfig)
        """Marching cubes options; null for a field that is never meshed."""
        weights: str | None = None
        """State dict to start this field from."""

        def __post_init__(self) -> None:
            is_progressive = isinstance(self.xyz_encoding_config, ProgressiveBandHashGrid.Config)
            if self.finite_difference_eps == "progressive" and not is_progressive:
                raise ConfigError(
                    "finite_difference_eps is 'progressive', which follows the levels of a ProgressiveBandHashGrid; "
                    "set xyz_encoding_config.otype to that or give a distance"
                )

    def __init__(self, config: "VolumeSDF.Config", contraction: Contraction):
        super().__init__()
        self.config = config
        if contraction != "box":
            raise ConfigError("volume-sdf lives in a box; choose volume-density for unbounded space")
        self.radius = config.radius
        self.contraction: Contraction = contraction
        self.n_features = config.feature_dim
        self.isosurface = config.isosurface
        self.has_laplacian = config.grad_type == "finite_difference"
        self.finite_difference_eps = config.finite_difference_eps
        self.sdf_activation = get_activation(config.sdf_activation)
        self.has_activation = config.sdf_activation is not None
        self.sdf_bias = config.sdf_bias
        self.feature_activation = get_activation(config.feature_activation)
        self.network = EncodedNetwork(config.xyz_encoding_config, config.mlp_network_config, config.feature_dim)

    def update(self, step: int) -> None:
        self.network.update(step)

    @property
    def tap_distance(self) -> float:
        """Distance of the finite-difference taps now, world units."""
        if self.finite_difference_eps != "progressive":
            return float(self.finite_difference_eps)
        assert isinstance(self.network.encoding, HashGrid)
        return 2 * self.radius * self.network.encoding.finest_cell()

    @property
    def tap_share(self) -> float | None:
        """The same as a share of the first distance, or None where it does not shrink with added levels."""
        encoding = self.network.encoding
        if self.finite_difference_eps != "progressive":
            return None
        assert isinstance(encoding, ProgressiveBandHashGrid)
        return encoding.finest_cell() / encoding.first_cell

    def forward(self, points: Float[Tensor, "N 3"]) -> SDFOutput:
        """Distance, gradient and feature at world points inside the box."""
        with self._full_precision(points):
            return self._by_finite_differences(points) if self.has_laplacian else self._analytic(points)

    def _analytic(self, points: Float[Tensor, "N 3"]) -> SDFOutput:
        feature, gradient = self.network.with_gradient(self._unit(points))
        sdf, slope = self._activate_with_slope(feature.T[0])  # a row: its gradient is feature-major
        gradient = gradient / (2 * self.radius)
        if slope is not None:
            gradient = gradient * slope[:, None]
        return SDFOutput(sdf, gradient, self.feature_activation(feature))

    def sdf(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Distance alone."""
        with self._full_precision(points):
            return self._activate(self.network(self._unit(points), n_outputs=1)[:, 0])

    def feature(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """What the texture is told, alone."""
        with self._full_precision(points):
            return self.feature_activation(self.network(self._unit(points)))

    def level(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Negative inside the isosurface, which lies where the distance equals its threshold."""
        if self.isosurface is None:
            raise ValueError("this field has no isosurface options; give model.geometry.isosurface to mesh it")
        return self.sdf(points) - self.isosurface.threshold

    def _full_precision(self, points: Tensor) -> torch.autocast:
        """Half precision turns the surface to noise, so mixed precision stops here."""
        return torch.autocast(points.device.type, enabled=False)

    def _unit(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        return contract(points, self.radius, self.contraction)

    def _activate(self, raw: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        return self.sdf_activation(raw + self.sdf_bias)

    def _activate_with_slope(self, raw: Float[Tensor, "N"]) -> tuple[Tensor, Tensor | None]:
        if not self.has_activation:
            return self._activate(raw), None
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            raw = raw if raw.requires_grad else raw.detach().requires_grad_()
            sdf = self._activate(raw)
            (slope,) = torch.autograd.grad(sdf.sum(), raw, create_graph=keep)
        return sdf, slope

    def _by_finite_differences(self, points: Float[Tensor, "N 3"]) -> SDFOutput:
        n, eps = points.shape[0], self.tap_distance
        axes = torch.eye(3, dtype=points.dtype, device=points.device)
        offsets = eps * torch.cat([axes, -axes])  # [6, 3]
        # Taps stay in the box; the divisors below use the distance that is left.
        taps = (points + offsets[:, None]).clamp(-self.radius, self.radius)  # [6, N, 3]
        feature = self.network(self._unit(points))
        center = self._activate(feature[:, 0])
        plus, minus = self.sdf(taps.reshape(-1, 3)).view(2, 3, n)
        axis = torch.arange(3, device=points.device)
        ahead = (taps[axis, :, axis] - points.T).clamp_min(0)  # [3, N]
        behind = (points.T - taps[3 + axis, :, axis]).clamp_min(0)
        gradient = (plus - minus) / (ahead + behind).clamp_min(1e-9)
        is_whole = (ahead > 0.5 * eps) & (behind > 0.5 * eps)
        second = torch.where(is_whole, (plus - center) / ahead.clamp_min(0.5 * eps), torch.zeros_like(plus))
        second = second - torch.where(is_whole, (center - minus) / behind.clamp_min(0.5 * eps), torch.zeros_like(plus))
        laplacian = (2 * second / (ahead + behind).clamp_min(1e-9)).sum(0)
        return SDFOutput(center, gradient.T, self.feature_activation(feature), laplacian)
