"""Sampling rays where an occupancy grid says that something may be."""

import ctypes

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.ops import nerfacc, reference
from models.ops.dispatch import Backend, call, check_shapes, on_gpu, uses_native
from utils.contraction import Contraction

GAP = 4  # cells along the side of a block, as in rays.h
MOST_GAP = 8
KEPT = 64  # intervals of a ray, as in cpu.cpp


def ray_box(
    origins: Float[Tensor, "R 3"], directions: Float[Tensor, "R 3"], radius: float
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"], Bool[Tensor, "R"]]:
    """Where rays enter and leave the cube of half side `radius` around the origin.

    Returns:
        near [R], at least 0; far [R]; and whether the ray meets the cube in front of its origin. A ray that misses
        has far <= near.
    """
    first, second = (-radius - origins) / directions, (radius - origins) / directions
    # fmin and fmax pass over NaN, which 0 / 0 gives for a ray that runs inside a face; it counts as a miss.
    entry, leave = torch.fmin(first, second), torch.fmax(first, second)
    near = torch.fmax(torch.fmax(entry[:, 0], entry[:, 1]), entry[:, 2]).clamp(min=0)
    far = torch.fmin(torch.fmin(leave[:, 0], leave[:, 1]), leave[:, 2])
    return near, far, far > near


@torch.no_grad()
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
    backend: Backend = "auto",
    gaps: UInt8[Tensor, "B B B"] | None = None,
    capacity: int | None = None,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"], Int[Tensor, "N"], Int[Tensor, "R_plus_1"]]:
    """Intervals of rays whose midpoints lie in shell cells, up to the first solid cell; packed.

    An interval that begins at distance t has length `max(step, t * cone)`; the first begins at `near + jitter * step`
    and each of the others where the one before it ends, whether that was kept or not. Thus a finer grid changes which
    intervals are kept, never where they lie. A midpoint beyond `far` ends the ray, and so does a step too short for
    float32 to tell its ends apart.

    Args:
        origins, directions: [R, 3] world space, unit directions.
        near, far: [R] range of each ray; under "box" it is clipped to the cube. Rays whose range, origin or direction
            is not finite get no samples.
        grid: [G, G, G] indexed z, y, x over the unit cube of contracted space: 0 empty, 1 shell, 2 solid.
        contraction: "box" maps the cube of half side `radius` to the unit cube; "sphere" maps all of space to a ball,
            the ball of `radius` to its inner half (Barron et al. 2022, eq. 10).
        step: shortest interval, world units, positive. A tensor stays where it is and is not looked at; if it is
            not positive, even intervals are none.
        cone: growth of the interval with distance; 0 means even intervals.
        jitter: [R] shift of the first interval, in steps, in [0, 1).
        gaps: what `empty_gaps` says of the grid: changes nothing but the speed.
        capacity: N, for a host that does not wait for a GPU to tell how many samples there are; kernels only.

    Returns:
        t_start [N], t_end [N], ray [N] ascending, offsets [R + 1]. Constants by definition: intervals move with
        their ray, so positions `origins + t * directions` have derivatives by the ray and none through t. With a
        capacity, zeros follow the last sample, and rays whose samples end beyond it are left out, but counted in
        offsets (utils.packing.fitting tells which); without, on a GPU the host waits once, for N.

    Raises:
        ValueError: unknown contraction; radius or step not positive; cone negative; shapes do not fit; a capacity
            where no kernel runs.
    """
    if contraction not in ("box", "sphere"):
        raise ValueError(f"march: contraction is '{contraction}', expected box or sphere")
    if not (radius > 0 and (isinstance(step, Tensor) or step > 0) and cone >= 0):
        raise ValueError(f"march: radius {radius}, step {step}, cone {cone}; expected positive, positive, not negative")
    n = len(origins)
    check_shapes(
        "march", origins=(origins, (n, 3)), directions=(directions, (n, 3)), near=(near, (n,)), far=(far, (n,))
    )
    check_shapes("march", jitter=(jitter, (n,)), grid=(grid, (len(grid),) * 3))
    if contraction == "box":
        entry, leave, _ = ray_box(origins, directions, radius)
        near, far = torch.maximum(near, entry), torch.minimum(far, leave)
    is_sound = (near + far + (origins + directions).sum(1)).isfinite()
    near, far = torch.where(is_sound, near, 0.0), torch.where(is_sound, far, 0.0)
    is_package, floats = backend == "nerfacc", [origins, directions, near, far, jitter]
    if is_package or not uses_native("march", backend, floats, "" if len(grid) else "the grid is empty"):
        if capacity is not None:
            raise ValueError(f"march: a capacity of {capacity} is for the kernels, and none runs here; leave it out")
        other = nerfacc.march if is_package else reference.march
        return other(origins, directions, near, far, grid, contraction, radius, step, cone, jitter)
    step = step.float() if isinstance(step, Tensor) else near.new_full((), step)
    floats, cells = [tensor.contiguous() for tensor in floats], grid.to(near.device, torch.uint8).contiguous()
    if gaps is not None:
        check_shapes("march", gaps=(gaps, (-(-len(grid) // GAP),) * 3))
        gaps = gaps.to(near.device).contiguous()
    addresses = cells.data_ptr(), None if gaps is None else gaps.data_ptr()
    occupancy = _Occupancy(addresses[0], len(cells), radius, contraction == "sphere", addresses[1])
    rays = _MarchRays(*(tensor.data_ptr() for tensor in floats), occupancy, step.data_ptr(), cone)
    counts = near.new_empty(n, dtype=torch.int64)
    kept = None if on_gpu(near) else near.new_empty(n, 2, KEPT)
    call("march_count", rays, n, counts, kept)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    if capacity is None:
        capacity = int(offsets[-1])
        ends, ray = near.new_empty(2, capacity), counts.new_empty(capacity)
    else:
        ends, ray = near.new_zeros(2, capacity), counts.new_zeros(capacity)
    call("march_fill", rays, n, capacity, offsets, kept, ends[0], ends[1], ray)
    return ends[0], ends[1], ray, offsets


def empty_gaps(grid: UInt8[Tensor, "G G G"]) -> UInt8[Tensor, "B B B"]:
    """Where rays may leap: for every block of 4 x 4 x 4 cells, how many blocks in each direction are empty.

    Args:
        grid: see `march`; sides that are no multiple of 4 are filled up with empty cells.

    Returns:
        [ceil(G / 4), ...] chessboard distance to the next block that holds anything, itself included, at most
        MOST_GAP; 0 where the block does.
    """
    n = -(-len(grid) // GAP)
    cells = torch.nn.functional.pad(grid, [0, n * GAP - len(grid)] * 3).contiguous()
    rows = cells.view(torch.int32).view(n, GAP, n, GAP, n)  # a row of four cells as one number, 0 where all are empty
    holds = rows.amax(3).amax(1) != 0
    gaps = torch.zeros_like(holds, dtype=torch.uint8)
    for _ in range(MOST_GAP):
        gaps += ~holds
        for axis in range(3):  # one after the other: several times faster than pooling cubes
            holds = _with_neighbors(holds, axis)
    return gaps


def _with_neighbors(holds: Bool[Tensor, "B B B"], axis: int) -> Bool[Tensor, "B B B"]:
    """Blocks that hold something, and those before and after them along an axis."""
    wider, n = holds.clone(), len(holds) - 1
    wider.narrow(axis, 1, n).logical_or_(holds.narrow(axis, 0, n))
    wider.narrow(axis, 0, n).logical_or_(holds.narrow(axis, 1, n))
    return wider


class _Occupancy(ctypes.Structure):
    """`Occupancy` of rays.h."""

    _fields_ = [
        ("cells", ctypes.c_void_p),
        ("resolution", ctypes.c_int64),
        ("radius", ctypes.c_float),
        ("is_sphere", ctypes.c_int),
        ("gaps", ctypes.c_void_p),
    ]


class _MarchRays(ctypes.Structure):
    """`MarchRays` of rays.h; does not keep the tensors alive."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("origins", "directions", "near", "far", "jitter")),
        ("grid", _Occupancy),
        ("step", ctypes.c_void_p),
        ("cone", ctypes.c_float),
    ]
