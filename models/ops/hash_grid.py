"""Multiresolution hash encoding of points (Mueller et al. 2022) and its derivative by position."""

from jaxtyping import Float
from torch import Tensor

from models.ops import reference
from models.ops.dispatch import Backend, uses_native
from models.ops.layout import GridLayout


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
        [L * F, N], level `l` in rows `l * F ... (l + 1) * F - 1`. Differentiable once, by `table` and `x`.

    Raises:
        ValueError: table or n_active do not fit the layout.
    """
    levels = active_levels(table, layout, n_active)
    uses_native("encode", backend, [x, table])
    return reference.encode(x, table, layout, levels)


def encode_jacobian(
    x: Float[Tensor, "3 N"],
    table: Float[Tensor, "entries F"],
    layout: GridLayout,
    n_active: int | None = None,
    backend: Backend = "auto",
) -> tuple[Float[Tensor, "features N"], Float[Tensor, "features 3 N"]]:
    """`encode` with its derivative [L * F, 3, N] by x, zero along an axis where x is clamped.

    The derivative jumps at cell faces, as the encoding is only piecewise smooth. Arguments as for `encode`.
    """
    levels = active_levels(table, layout, n_active)
    uses_native("encode_jacobian", backend, [x, table])
    return reference.encode_jacobian(x, table, layout, levels)


def active_levels(table: Tensor, layout: GridLayout, n_active: int | None) -> int:
    """`n_active`, or all levels, once table and number fit the layout."""
    if tuple(table.shape) != (layout.n_entries, layout.n_features):
        raise ValueError(
            f"hash grid: table is {list(table.shape)}, expected {[layout.n_entries, layout.n_features]} for {layout}"
        )
    levels = layout.n_levels if n_active is None else n_active
    if not 0 <= levels <= layout.n_levels:
        raise ValueError(f"hash grid: n_active is {levels}, expected 0 to {layout.n_levels}")
    return levels
