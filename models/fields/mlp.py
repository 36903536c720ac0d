"""Small multilayer perceptrons. `otype` names the mathematics, `backend` the implementation.

`VanillaMLP` has biases; `FullyFusedMLP` and `CutlassMLP`, named after tiny-cuda-nn's networks, have none.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import networks, ops
from models.fields.activations import get_activation
from models.ops.dispatch import Backend
from utils.registry import ConfigError


@networks.register("VanillaMLP", "FullyFusedMLP", "CutlassMLP")
class MLP(nn.Module):
    """`n_hidden_layers` layers of `n_neurons` and a linear output, with an activation on top.

    Sphere initialisation makes the first output a signed distance to a sphere of `sphere_init_radius` around the
    origin, provided that the first three inputs are coordinates in [-1, 1] (Atzmon & Lipman 2020, SAL, theorem 1). It
    needs a smooth hidden activation and sets Softplus with beta 100, whatever `activation` says. With weight
    normalisation the parameters are a direction and a length per row (Salimans & Kingma 2016).
    """

    @dataclass
    class Config:
        otype: Literal["VanillaMLP", "FullyFusedMLP", "CutlassMLP"] = "VanillaMLP"
        """The mathematics: VanillaMLP has biases, the others have none."""
        n_neurons: int = 64
        """Width of the hidden layers."""
        n_hidden_layers: int = 1
        """Number of hidden layers."""
        activation: str = "ReLU"
        """Hidden activation: ReLU or Softplus (beta 100)."""
        output_activation: str = "none"
        """Activation of the output, by name."""
        sphere_init: bool = False
        """Whether the network starts as the signed distance to a sphere."""
        sphere_init_radius: float = 0.5
        """Radius of that sphere, in units of the scene radius."""
        weight_norm: bool = False
        """Whether weights are stored as direction and length."""
        backend: Backend = "auto"
        """Implementation; a named one never falls back to another."""

        def __post_init__(self) -> None:
            if self.activation.lower() not in ("relu", "softplus"):
                raise ConfigError(f"activation is '{self.activation}', but hidden layers know ReLU and Softplus")

    def __init__(self, config: "MLP.Config", n_inputs: int, n_outputs: int):
        super().__init__()
        self.n_inputs, self.n_outputs = n_inputs, n_outputs
        self.activation = "softplus" if config.sphere_init else config.activation.lower()
        self.output_activation = get_activation(config.output_activation)
        self.backend: Backend = config.backend
        sizes = [n_inputs, *[config.n_neurons] * config.n_hidden_layers, n_outputs]
        has_bias = config.otype == "VanillaMLP"
        self.directions = nn.ParameterList()
        self.lengths = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (n_in, n_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            weight, bias = torch.empty(n_out, n_in), torch.zeros(n_out)
            if config.sphere_init:
                _sphere_init(weight, bias, layer, len(sizes) - 2, config.sphere_init_radius)
            else:
                nn.init.kaiming_uniform_(weight, nonlinearity="relu")
            self.directions.append(nn.Parameter(weight))
            if config.weight_norm:
                self.lengths.append(nn.Parameter(weight.norm(dim=1, keepdim=True)))
            if has_bias:
                self.biases.append(nn.Parameter(bias))

    def layers(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """Weights [out, in] and biases [out] (or None) of every layer, normalisation applied."""
        weights = list(self.directions)
        if self.lengths:
            weights = [g * torch.nn.functional.normalize(v) for v, g in zip(weights, self.lengths, strict=True)]
        return weights, list(self.biases) if self.biases else [None] * len(weights)

    def forward(self, *inputs: Float[Tensor, "N _"]) -> Float[Tensor, "N O"]:
        """The network of the inputs laid side by side."""
        # Compute kernels are feature-major: a [N, F] made as the transpose of [F, N] joins them without a copy.
        joined = torch.cat([part.T for part in inputs])
        weights, biases = self.layers()
        output = ops.mlp(joined, weights, biases, self.activation, "none", self.backend)
        return self.output_activation(output).T


def _sphere_init(weight: Tensor, bias: Tensor, layer: int, last: int, radius: float) -> None:
    n_out, n_in = weight.shape
    with torch.no_grad():
        if layer == last:
            weight.normal_(math.sqrt(math.pi) / math.sqrt(n_in), 1e-4)
            bias.fill_(-radius)
        else:
            weight.normal_(0, math.sqrt(2) / math.sqrt(n_out))
            if layer == 0:
                weight[:, 3:] = 0
