"""An encoding and a network as one function of the unit cube, fused where kernels exist."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models import encodings, networks, ops
from models.fields.encodings import Encoding, HashGrid
from models.fields.mlp import MLP
from models.ops.dispatch import Backend
from utils.registry import ConfigError

# Evaluation without gradients goes through large sets of points in pieces of this many.
_PIECE = 1 << 18


class EncodedNetwork(nn.Module):
    """[N, 3] points of the unit cube -> [N, n_outputs]."""

    def __init__(self, encoding: object, network: object, n_outputs: int):
        super().__init__()
        self.encoding: Encoding = encodings.make(encoding)
        self.network: MLP = networks.make(network, self.encoding.n_outputs, n_outputs)

    def update(self, step: int) -> None:
        self.encoding.update(step)

    def forward(self, x: Float[Tensor, "N 3"], n_outputs: int | None = None) -> Float[Tensor, "N _"]:
        """Outputs, or the first `n_outputs` of them."""
        if torch.is_grad_enabled() or x.shape[0] <= _PIECE:
            return self._evaluate(x, n_outputs)
        return torch.cat([self._evaluate(piece, n_outputs) for piece in x.split(_PIECE)])

    def with_gradient(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N O"], Float[Tensor, "N 3"]]:
        """Outputs and the derivative of the first one with respect to `x`, both differentiable by all parameters.

        Where `x` itself asks for gradients, which only the refinement of cameras does, it gets those of the outputs,
        exactly and by kernels. The returned derivative counts as constant along `x`, on purpose and with every
        backend: inside a cell of a hash grid it changes by the bend across the axes alone, and it jumps at the faces,
        so its own derivative says little about where a camera should be.
        """
        encoding, network = self.encoding, self.network
        if not isinstance(encoding, HashGrid):
            return self._differentiate_twice(x)
        weights, biases = network.layers()
        rest = (
            encoding.table,
            encoding.layout,
            weights,
            biases,
            network.activation,
            encoding.n_active,
            encoding.include_xyz,
            self._backend(),
        )
        output, gradient = ops.sdf_field(x.detach().T.contiguous(), *rest)
        if torch.is_grad_enabled() and x.requires_grad:
            output = ops.field(x.T.contiguous(), *rest)
        return output.T, gradient.T

    def _evaluate(self, x: Float[Tensor, "N 3"], n_outputs: int | None) -> Float[Tensor, "N _"]:
        encoding, network = self.encoding, self.network
        if not isinstance(encoding, HashGrid):
            return network(encoding(x))[:, :n_outputs]
        weights, biases = network.layers()
        if n_outputs is not None:
            weights = [*weights[:-1], weights[-1][:n_outputs]]
            biases = [*biases[:-1], None if biases[-1] is None else biases[-1][:n_outputs]]
        output = ops.field(
            x.T.contiguous(),
            encoding.table,
            encoding.layout,
            weights,
            biases,
            network.activation,
            encoding.n_active,
            encoding.include_xyz,
            self._backend(),
        )
        return network.output_activation(output).T

    def _backend(self) -> Backend:
        """What encoding and network agree on; `auto` follows the other."""
        named = {self.encoding.backend, self.network.backend} - {"auto"}  # type: ignore[union-attr]
        if len(named) > 1:
            raise ConfigError(
                f"xyz_encoding_config.backend and mlp_network_config.backend are {' and '.join(sorted(named))}, "
                "but run as one operation; name the same in both"
            )
        return named.pop() if named else "auto"

    def _differentiate_twice(self, x: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N O"], Float[Tensor, "N 3"]]:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_() if not x.requires_grad else x
            weights, biases = self.network.layers()
            # Kernels differentiate once; plain torch differentiates its own derivative.
            output = ops.mlp(self.encoding(x).T, weights, biases, self.network.activation, "none", "reference").T
            (gradient,) = torch.autograd.grad(output[:, 0].sum(), x, create_graph=keep)
        return (output, gradient) if keep else (output.detach(), gradient.detach())
