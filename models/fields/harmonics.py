"""Harmonic embedding: coordinates as sines and cosines of growing frequency (Mildenhall et al. 2020, NeRF, eq. 4)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class HarmonicEmbedding(nn.Module):
    """sin(f_k x_i) for every coordinate i and, within it, every frequency k; then the cosines; then x itself.

    Args:
        n_frequencies: f_k = omega_0 2^k; 0 leaves x alone.
        n_inputs: coordinates.
        omega_0: lowest frequency, radians per unit.
        is_logarithmic: otherwise frequencies stand at even steps from omega_0 to omega_0 2^(n - 1).
        append_input: whether x is appended.
    """

    frequencies: Tensor

    def __init__(
        self,
        n_frequencies: int,
        n_inputs: int = 3,
        omega_0: float = 1.0,
        is_logarithmic: bool = True,
        append_input: bool = True,
    ):
        super().__init__()
        if is_logarithmic:
            frequencies = 2.0 ** torch.arange(n_frequencies)
        else:
            frequencies = torch.linspace(1, 2.0 ** (n_frequencies - 1), n_frequencies)
        self.register_buffer("frequencies", omega_0 * frequencies, persistent=False)
        self.append_input = append_input
        self.n_outputs = n_inputs * (2 * n_frequencies + append_input)

    def forward(self, x: Float[Tensor, "*B D"], variance: Float[Tensor, "*B D"] | None = None) -> Float[Tensor, "*B F"]:
        """The embedding.

        Args:
            x: coordinates.
            variance: of Gaussians around x with independent coordinates: the embedding is then its mean over them,
                exp(-f^2 variance / 2) times that of x (Barron et al. 2021, mip-NeRF, eq. 14).
        """
        phase = (x[..., None] * self.frequencies).flatten(-2)
        waves = [torch.sin(phase), torch.cos(phase)]
        if variance is not None:
            blur = torch.exp(-0.5 * (variance[..., None] * self.frequencies.square()).flatten(-2))
            waves = [blur * wave for wave in waves]
        return torch.cat([*waves, x] if self.append_input else waves, dim=-1)
