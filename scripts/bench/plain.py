"""The baseline: what one writes with torch alone, a forward pass, with autograd for everything else.

Points are [N, 3] and activations [N, features], as torch's layers have them. The gradient of a distance field is
`autograd.grad(..., create_graph=True)`, and training goes backwards through it a second time. Of eight ways to write
the hash grid this was the fastest on a CPU: `index_select` in one level at a time, points last while corners are mixed,
an axis after the other. Lookups in the whole table would make each level's gradient as large as the table.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from models.ops import GridLayout

PRIMES = 1, 2654435761, 805459861


def encode(
    x: Float[Tensor, "N 3"], table: Float[Tensor, "entries F"], layout: GridLayout, n_active: int | None = None
) -> Float[Tensor, "N features"]:
    """Multiresolution hash encoding (Mueller et al. 2022); levels from `n_active` on are zero."""
    features = []
    for level, entries in enumerate(table.split(level_sizes(layout))[:n_active]):
        keys, fraction = corners(x, layout, level)
        value = entries.index_select(0, keys.flatten()).t().reshape(layout.n_features, 2, 2, 2, len(x))
        for share in fraction.t():
            # Between the two ends of the first axis that is left.
            value = torch.lerp(value[:, 0], value[:, 1], share)
        features.append(value.t())
    silent = x.new_zeros(len(x), layout.n_outputs - layout.n_features * len(features))
    return torch.cat([*features, silent], dim=1)


def corners(x: Float[Tensor, "N 3"], layout: GridLayout, level: int) -> tuple[Int[Tensor, "8 N"], Float[Tensor, "N 3"]]:
    """Entries of a level at the corners of each point's cell, x slowest, and the position in the cell."""
    position = x * layout.scales[level] + 0.5
    cell = position.detach().floor()
    bits = torch.arange(8, device=x.device)
    corner = torch.stack([bits >> 2 & 1, bits >> 1 & 1, bits & 1])  # [3, 8]
    along_x, along_y, along_z = cell.long().t()[:, None] + corner[:, :, None]  # [3, 8, N]
    if layout.is_dense[level]:
        resolution = layout.resolutions[level]
        return along_x + resolution * (along_y + resolution * along_z), position - cell
    key = along_x * PRIMES[0] ^ along_y * PRIMES[1] ^ along_z * PRIMES[2]
    return key & (level_sizes(layout)[level] - 1), position - cell


def level_sizes(layout: GridLayout) -> list[int]:
    """Entries of each level."""
    return [after - before for before, after in zip(layout.offsets, layout.offsets[1:], strict=False)]


def perceptron(
    x: Float[Tensor, "N I"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    output_activation: str = "none",
) -> Float[Tensor, "N O"]:
    """Fully connected layers with "relu" or "softplus" (sharpness 100) between them."""
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = functional.linear(x, weight, bias)
        if layer < len(weights) - 1:
            x = torch.relu(x) if activation == "relu" else functional.softplus(x, 100)
    return torch.sigmoid(x) if output_activation == "sigmoid" else x


def distance_field(
    x: Float[Tensor, "N 3"],
    encoding: Callable[[Tensor], Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    include_xyz: bool = True,
) -> tuple[Float[Tensor, "N O"], Float[Tensor, "N 3"]]:
    """Outputs of a perceptron on an encoding, and the derivative of the first one by position, ready for another."""
    x = x.detach().requires_grad_()
    features = encoding(x)
    inputs = torch.cat([2 * x - 1, features], dim=1) if include_xyz else features
    outputs = perceptron(inputs, weights, biases, activation)
    (gradient,) = torch.autograd.grad(outputs[:, 0].sum(), x, create_graph=True)
    return outputs, gradient


def composite(
    alpha: Float[Tensor, "N"], values: Float[Tensor, "N C"], ray: Int[Tensor, "N"], offsets: Int[Tensor, "R_plus_1"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "R C"]]:
    """Weights and sums of packed samples: transmittance from a running sum of logarithms over the whole batch."""
    passed = torch.log1p(-alpha.clamp(max=1 - 1e-6)).double().cumsum(0)
    before = functional.pad(passed, (1, 0))
    weights = alpha * (before[:-1] - before[offsets[:-1]][ray]).exp().float()
    sums = values.new_zeros(len(offsets) - 1, values.shape[1]).index_add(0, ray, weights[:, None] * values)
    return weights, sums


def neus_alpha(sdf: Tensor, slope: Tensor, width: Tensor, sharpness: Tensor) -> Float[Tensor, "N"]:
    """Opacities of intervals [N] from distances at their midpoints (Wang et al. 2021, sec. 3.1)."""
    before = torch.sigmoid((sdf - 0.5 * slope * width) * sharpness)
    after = torch.sigmoid((sdf + 0.5 * slope * width) * sharpness)
    return ((before - after + 1e-5) / (before + 1e-5)).clamp(0, 1)
