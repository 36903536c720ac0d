"""The definition of every operation: plain torch, any device and precision, differentiable once in every input.

Notation: `N` points or samples, `R` rays, `L` levels of `F` features. Arrays are feature-major, x is [3, N] in the
unit cube. The kernels are tested against these functions; these functions against finite differences. Gradients of
fields are closed forms, so training through them needs no double backward. The public functions in the sibling
modules carry the contracts.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from models.ops.layout import GridLayout
from utils.contraction import Contraction, contract

HASH_PRIMES = (1, 2654435761, 805459861)
SOFTPLUS_BETA = 100.0
SOFTPLUS_THRESHOLD = 36.0  # torch's default of 20 cuts the curve off 2e-9 away from its slope
EMPTY, SHELL, SOLID = 0, 1, 2
MARCH_CHUNK = 2**22  # lattice points looked up at once

# Hidden activations: value and slope. The slope is itself differentiable.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (torch.relu, lambda z: (z > 0).to(z.dtype)),
    "softplus": (
        lambda z: functional.softplus(z, SOFTPLUS_BETA, SOFTPLUS_THRESHOLD),
        lambda z: torch.sigmoid(SOFTPLUS_BETA * z),
    ),
}
OUTPUT_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda z: z,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}


def encode(
    x: Float[Tensor, "3 N"], table: Float[Tensor, "entries F"], layout: GridLayout, n_active: int
) -> Float[Tensor, "features N"]:
    return encode_jacobian(x, table, layout, n_active)[0]


def encode_jacobian(
    x: Float[Tensor, "3 N"], table: Float[Tensor, "entries F"], layout: GridLayout, n_active: int
) -> tuple[Float[Tensor, "features N"], Float[Tensor, "features 3 N"]]:
    """Trilinear interpolation of each level's cell corners, and its derivative."""
    sizes = [after - before for before, after in zip(layout.offsets, layout.offsets[1:], strict=False)]
    is_inside = ((x >= 0) & (x <= 1)).to(x.dtype)
    features, jacobians = [], []
    # Splitting first: the gradient of a lookup is as large as the table it looks into.
    for level, entries in enumerate(table.split(sizes)[:n_active]):
        keys, fraction = _locate(x, layout, level)
        corners = entries.index_select(0, keys.flatten()).t()  # [F, 8 N]
        value, slope = _interpolate(corners.reshape(layout.n_features, 2, 2, 2, x.shape[1]), fraction)
        features.append(value)
        jacobians.append(slope * (layout.scales[level] * is_inside))
    n_silent = (layout.n_levels - n_active) * layout.n_features
    features.append(x.new_zeros(n_silent, x.shape[1]))
    jacobians.append(x.new_zeros(n_silent, 3, x.shape[1]))
    return torch.cat(features), torch.cat(jacobians)


def _interpolate(corners: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
    """Values [F, N] between corners [F, z, y, x, N] and their derivatives [F, 3, N] by the position in the cell."""
    x, y, z = fraction
    dx = corners[:, :, :, 1] - corners[:, :, :, 0]  # [F, z, y, N]
    edges = corners[:, :, :, 0] + x * dx
    dy = edges[:, :, 1] - edges[:, :, 0]  # [F, z, N]
    faces = edges[:, :, 0] + y * dy
    dz = faces[:, 1] - faces[:, 0]  # [F, N]
    dx = dx[:, :, 0] + y * (dx[:, :, 1] - dx[:, :, 0])
    slope = torch.stack([dx[:, 0] + z * (dx[:, 1] - dx[:, 0]), dy[:, 0] + z * (dy[:, 1] - dy[:, 0]), dz], 1)
    return faces[:, 0] + z * dz, slope


def _locate(x: Tensor, layout: GridLayout, level: int) -> tuple[Tensor, Tensor]:
    """Entries [8, N] of the corners of each point's cell, x fastest, and the position [3, N] inside the cell."""
    position = x.clamp(0, 1) * layout.scales[level] + 0.5
    # A NaN position looks at cell 0 but keeps its NaN fraction: memory-safe, yet visible in the result.
    cell = position.detach().nan_to_num(0.0).floor()
    bits = torch.arange(8, device=x.device)
    corner = torch.stack([bits & 1, bits >> 1 & 1, bits >> 2 & 1])  # [3, 8]
    vertex = cell.long()[:, None] + corner[:, :, None]  # [3, 8, N]
    if layout.is_dense[level]:
        resolution = layout.resolutions[level]
        keys = vertex[0] + resolution * (vertex[1] + resolution * vertex[2])
    else:
        keys = vertex[0] * HASH_PRIMES[0] ^ vertex[1] * HASH_PRIMES[1] ^ vertex[2] * HASH_PRIMES[2]
        keys = keys & (2**layout.log2_hashmap_size - 1)
    return keys, position - cell


def mlp(
    x: Float[Tensor, "inputs N"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    output_activation: str,
) -> Float[Tensor, "outputs N"]:
    return OUTPUT_ACTIVATIONS[output_activation](_layers(x, weights, biases, activation)[-1])


def _layers(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], activation: str) -> list[Tensor]:
    """Each layer's affine output [width, N], before its activation."""
    affine = []
    for weight, bias in zip(weights, biases, strict=True):
        inputs = ACTIVATIONS[activation][0](affine[-1]) if affine else x
        outputs = weight @ inputs
        affine.append(outputs if bias is None else outputs + bias[:, None])
    return affine


def field(
    x: Float[Tensor, "3 N"],
    table: Float[Tensor, "entries F"],
    layout: GridLayout,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    n_active: int,
    include_xyz: bool,
) -> Float[Tensor, "outputs N"]:
    features = encode(x, table, layout, n_active)
    inputs = torch.cat([2 * x - 1, features]) if include_xyz else features
    return mlp(inputs, weights, biases, activation, "none")


def sdf_field(
    x: Float[Tensor, "3 N"],
    table: Float[Tensor, "entries F"],
    layout: GridLayout,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    activation: str,
    n_active: int,
    include_xyz: bool,
) -> tuple[Float[Tensor, "outputs N"], Float[Tensor, "3 N"]]:
    """Field and the gradient of its first output.

    With z_l = W_l a_(l-1) + b_l and a_l = phi(z_l), the gradient by the inputs runs backwards through the layers,
    tau = row 0 of the last W, then tau <- W_l^T (phi'(z_l) tau), and ends in J^T tau.
    """
    features, jacobian = encode_jacobian(x, table, layout, n_active)
    inputs = torch.cat([2 * x - 1, features]) if include_xyz else features
    affine = _layers(inputs, weights, biases, activation)
    slope = ACTIVATIONS[activation][1]
    tau = weights[-1][0][:, None].expand(-1, x.shape[1])
    for weight, z in zip(reversed(weights[:-1]), reversed(affine[:-1]), strict=True):
        tau = weight.t() @ (slope(z) * tau)
    n_xyz = 3 if include_xyz else 0
    gradient = (jacobian * tau[n_xyz:, None]).sum(0)
    return affine[-1], gradient + 2 * tau[:3] if include_xyz else gradient


def spherical_harmonics(d: Float[Tensor, "3 N"], degree: int) -> Float[Tensor, "harmonics N"]:
    """Real harmonics as polynomials of the unit vector, bands in order, within a band from -m to m."""
    x, y, z = d
    xx, yy, zz = x * x, y * y, z * z

    def norm(ratio: float) -> float:
        return math.sqrt(ratio / math.pi)

    bands = [
        [norm(1 / 4) * torch.ones_like(x)],
        [-norm(3 / 4) * y, norm(3 / 4) * z, -norm(3 / 4) * x],
        [
            norm(15 / 4) * x * y,
            -norm(15 / 4) * y * z,
            norm(5 / 16) * (3 * zz - 1),
            -norm(15 / 4) * x * z,
            norm(15 / 16) * (xx - yy),
        ],
        [
            norm(35 / 32) * y * (yy - 3 * xx),
            norm(105 / 4) * x * y * z,
            norm(21 / 32) * y * (1 - 5 * zz),
            norm(7 / 16) * z * (5 * zz - 3),
            norm(21 / 32) * x * (1 - 5 * zz),
            norm(105 / 16) * z * (xx - yy),
            norm(35 / 32) * x * (3 * yy - xx),
        ],
    ]
    return torch.stack([harmonic for band in bands[:degree] for harmonic in band])


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    near: Float[Tensor, "R"],
    far: Float[Tensor, "R"],
    grid: UInt8[Tensor, "G G G"],
    contraction: Contraction,
    radius: float,
    step: float | Float[Tensor, ""],
    cone: float,
    jitter: Float[Tensor, "R"],
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"], Int[Tensor, "N"], Int[Tensor, "R_plus_1"]]:
    """Every interval of each ray's lattice whose midpoint lies before `far`, in a shell cell, before any solid cell."""
    t = _lattice(near, far, step, cone, jitter)  # [R, K]
    rows_at_once = max(1, MARCH_CHUNK // max(t.shape[1], 1))
    kept = []
    for rows in torch.arange(len(t), device=t.device).split(rows_at_once):
        width = (t[rows] * cone).clamp(min=step)
        middle = t[rows] + 0.5 * width
        points = origins[rows, None] + middle[:, :, None] * directions[rows, None]  # [rows, K, 3]
        cell = (contract(points, radius, contraction) * len(grid)).nan_to_num(0.0).clamp(0, len(grid) - 1).long()
        is_on_ray = (middle < far[rows, None]) & (t[rows] + width > t[rows])
        state = torch.where(is_on_ray, grid[cell[..., 2], cell[..., 1], cell[..., 0]], EMPTY)
        kept.append((state == SHELL) & ((state == SOLID).cumsum(1) == 0))
    is_kept = torch.cat(kept) if kept else torch.zeros_like(t, dtype=torch.bool)
    t_start = t[is_kept]
    ray = is_kept.nonzero()[:, 0]
    offsets = functional.pad(is_kept.sum(1).cumsum(0), (1, 0))
    return t_start, t_start + (t_start * cone).clamp(min=step), ray, offsets


def _lattice(near: Tensor, far: Tensor, step: float | Tensor, cone: float, jitter: Tensor) -> Tensor:
    """Where the intervals of each ray begin: [R, K], the first at `near + jitter * step`."""
    t = near + jitter * step
    if not len(t):
        return t.new_zeros(0, 0)
    if cone == 0:
        n_steps = math.ceil(max(((far - near) / step).max().item(), 0.0)) + 1
        return t[:, None] + torch.arange(n_steps, device=t.device) * step
    columns, after = [], t + (t * cone).clamp(min=step)
    while bool(((t < far) & (after > t)).any()):
        columns.append(t)
        t, after = after, after + (after * cone).clamp(min=step)
    return torch.stack(columns, 1) if columns else t.new_zeros(len(t), 0)


def composite(
    alpha: Float[Tensor, "N"], values: Float[Tensor, "C N"], offsets: Int[Tensor, "R_plus_1"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "C R"]]:
    padded, is_sample = _pad(alpha[None], offsets)
    transmitted = (1 - padded[0]).cumprod(1)  # [R, S]
    transmittance = functional.pad(transmitted, (1, 0), value=1.0)[:, :-1]
    weights = padded[0] * transmittance
    sums = (weights * _pad(values, offsets)[0]).sum(2)
    return weights[is_sample], sums


def distortion(
    weights: Float[Tensor, "N"], t_mid: Float[Tensor, "N"], width: Float[Tensor, "N"], offsets: Int[Tensor, "R_plus_1"]
) -> Float[Tensor, "R"]:
    (w, t, d), _ = _pad(torch.stack([weights, t_mid.detach(), width.detach()]), offsets)
    before, moment = w.cumsum(1) - w, (w * t).cumsum(1) - w * t
    return (d * w * w).sum(1) / 3 + 2 * (w * (t * before - moment)).sum(1)


def _pad(values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Packed [C, N] as [C, R, S], zero after each ray's last sample, and which of [R, S] are samples."""
    counts = offsets.diff()
    n_most = int(counts.max()) if len(counts) else 0
    column = torch.arange(n_most, device=values.device)
    is_sample = column < counts[:, None]
    index = (offsets[:-1, None] + column).clamp(max=max(values.shape[1] - 1, 0))
    return torch.where(is_sample, values[:, index], 0.0), is_sample


def neus_alpha(
    sdf: Float[Tensor, "N"], slope: Float[Tensor, "N"], width: Float[Tensor, "N"], sharpness: Float[Tensor, ""]
) -> Float[Tensor, "N"]:
    s = sharpness.clamp(1e-6, 1e6)
    before = torch.sigmoid((sdf - 0.5 * slope * width) * s)
    after = torch.sigmoid((sdf + 0.5 * slope * width) * s)
    return ((before - after + 1e-5) / (before + 1e-5)).clamp(0, 1)
