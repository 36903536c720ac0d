"""Multiresolution hash encoding of points (Mueller et al. 2022) and its derivative by position."""

import ctypes
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.ops import native, reference, tinycudann
from models.ops.autograd import first_order_only
from models.ops.dispatch import Backend, call, check_shapes, uses_native
from models.ops.layout import GridLayout

KERNEL_FEATURES = (1, 2, 4, 8)
MOST_LEVELS = 64  # as in cuda.cu, and the most that a layout may have
MOST_IN_TILE = 64  # points of a tile of tiles.h


def encode(
    x: Float[Tensor, "3 N"],
    table: Float[Tensor, "entries F"],
    layout: GridLayout,
    n_active: int | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "features N"]:
    """Features of points: in every level, the trilinear mean of the 8 vertices around the point.

    Args:
        x: [3, N] points, clamped to [0, 1]; a NaN gives NaN features.
        table: [n_entries, F] values at the vertices.
        layout: where the levels lie in the table.
        n_active: the first so many levels count, the others are zero and never touched; None means all.

    Returns:
        [L * F, N], level `l` in rows `l * F ... (l + 1) * F - 1`. Differentiable once, by `table` and by the position
        `x`: exactly within a cell, zero along an axis where x is clamped, and in every implementation.

    Raises:
        ValueError: table or n_active do not fit the layout.
    """
    levels = active_levels(x, table, layout, n_active)
    if backend == "tinycudann":
        return tinycudann.encode(x, table, layout, levels)
    if not uses_native("encode", backend, [x, table], grid_obstacle(layout)):
        return reference.encode(x, table, layout, levels)
    return _Encode.apply(x, table, layout, levels, torch.is_grad_enabled() and x.requires_grad)


def encode_jacobian(
    x: Float[Tensor, "3 N"],
    table: Float[Tensor, "entries F"],
    layout: GridLayout,
    n_active: int | None = None,
    backend: Backend = "auto",
) -> tuple[Float[Tensor, "features N"], Float[Tensor, "features 3 N"]]:
    """`encode` with its derivative [L * F, 3, N] by x, zero along an axis where x is clamped.

    The derivative jumps at cell faces, as the encoding is only piecewise smooth. Arguments as for `encode`. Only the
    reference can be differentiated, by `table` and by the position `x` (exactly: curvature across the axes of a cell);
    the kernels refuse. Training goes through `sdf_field`.
    """
    levels = active_levels(x, table, layout, n_active)
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or table.requires_grad)
    obstacle = grid_obstacle(layout) or ("the kernel gives no gradients" if needs_gradient else "")
    if not uses_native("encode_jacobian", backend, [x, table], obstacle):
        return reference.encode_jacobian(x, table, layout, levels)
    y, jacobian = x.new_zeros(layout.n_outputs, x.shape[1]), x.new_zeros(layout.n_outputs, 3, x.shape[1])
    encode_into(y, jacobian, x.contiguous(), table.contiguous(), layout, levels)
    return y, jacobian


def active_levels(x: Tensor, table: Tensor, layout: GridLayout, n_active: int | None) -> int:
    """`n_active`, or all levels, once points, table and number fit the layout."""
    check_shapes("hash grid", x=(x, (3, x.shape[-1])))
    if tuple(table.shape) != (layout.n_entries, layout.n_features):
        raise ValueError(
            f"hash grid: table is {list(table.shape)}, expected {[layout.n_entries, layout.n_features]} for {layout}"
        )
    levels = layout.n_levels if n_active is None else n_active
    if not 0 <= levels <= layout.n_levels:
        raise ValueError(f"hash grid: n_active is {levels}, expected 0 to {layout.n_levels}")
    return levels


def grid_obstacle(layout: GridLayout) -> str:
    """Why the kernels cannot take this layout; empty if they can."""
    return "" if layout.n_features in KERNEL_FEATURES else f"no kernel has {layout.n_features} features per level"


def encode_into(
    y: Tensor, jacobian: Tensor | None, x: Tensor, table: Tensor, layout: GridLayout, n_active: int
) -> None:
    """Writes the active levels' rows at the beginning of y [.., N] and jacobian [.., 3, N]; kernel only."""
    table = table if table.data_ptr() % 16 == 0 else table.clone()  # a GPU reads and writes whole entries at once
    call("encode", _levels(layout), n_active, layout.n_features, x.shape[1], x, table, y, jacobian)


def encode_by_tile(y: Tensor, x: Tensor, table: Tensor, layout: GridLayout, n_active: int) -> Tensor:
    """Writes the active levels' rows of y [.., N]; returns the Jacobian by tile, for the CPU's network kernels only."""
    n_points = -(-x.shape[1] // MOST_IN_TILE) * MOST_IN_TILE
    jacobian = x.new_empty(n_active * layout.n_features * 3 * n_points)
    native.call("encode_by_tile", _levels(layout), n_active, layout.n_features, x.shape[1], x, table, y, jacobian)
    return jacobian


def scatter(
    x: Tensor,
    layout: GridLayout,
    n_active: int,
    d_features: Tensor,
    tau: Tensor | None = None,
    d_gradient: Tensor | None = None,
) -> Tensor:
    """Gradient [n_entries, F] of d_features . y + d_gradient . (J^T tau) by the table; kernel only.

    Args:
        d_features: [n_active * F, N] gradient by the features.
        tau: [n_active * F, N] gradient of the distance by the features.
        d_gradient: [3, N] upstream gradient by the distance's gradient.
    """
    d_table = x.new_zeros(layout.n_entries, layout.n_features)
    arguments = x.shape[1], x, d_features, tau, d_gradient, d_table
    call("scatter", _levels(layout), n_active, layout.n_features, *arguments)
    return d_table


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, layout: GridLayout, n_active: int, needs_jacobian: bool) -> Tensor:
        x, table = x.contiguous(), table.contiguous()
        n_rows = n_active * layout.n_features
        y = x.new_zeros(layout.n_outputs, x.shape[1])
        jacobian = x.new_empty(n_rows, 3, x.shape[1]) if needs_jacobian else None
        encode_into(y, jacobian, x, table, layout, n_active)
        ctx.save_for_backward(x, jacobian)
        ctx.layout, ctx.n_active = layout, n_active
        return y

    @staticmethod
    @first_order_only
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, jacobian = ctx.saved_tensors
        d_y = d_y.contiguous()
        d_x = pull_to_position(jacobian, d_y) if ctx.needs_input_grad[0] else None
        d_table = scatter(x, ctx.layout, ctx.n_active, d_y) if ctx.needs_input_grad[1] else None
        return d_x, d_table, None, None, None


def pull_to_position(jacobian: Tensor, d_features: Tensor) -> Tensor:
    """J^T d_features, [3, N]; kernel only."""
    d_x = jacobian.new_empty(3, jacobian.shape[2])
    call("pull_to_position", jacobian.shape[0], jacobian.shape[2], jacobian, d_features, d_x)
    return d_x


class _Level(ctypes.Structure):
    """`Level` of kernels.h."""

    _fields_ = [
        ("scale", ctypes.c_float),
        ("resolution", ctypes.c_uint32),
        ("mask", ctypes.c_uint32),
        ("is_dense", ctypes.c_uint32),
        ("offset", ctypes.c_int64),
    ]


@cache
def _levels(layout: GridLayout) -> ctypes.Array:
    mask = 2**layout.log2_hashmap_size - 1
    columns = zip(layout.scales, layout.resolutions, layout.is_dense, layout.offsets[:-1], strict=True)
    return (_Level * MOST_LEVELS)(*(_Level(scale, size, mask, dense, start) for scale, size, dense, start in columns))
