"""The few operations that carry the cost of a training step, each with one contract and several implementations.

Arrays are feature-major: points x are [3, N] in the unit cube, activations [features, N]. Every operation takes
`backend`: "auto" (kernel where there is one, else the reference, told once), "reference", "native" (the kernels), or
where it fits "tinycudann" and "nerfacc"; a named one never gives way to another.
"""

from models.ops import closed_form, native
from models.ops.compositing import composite, distortion, neus_alpha
from models.ops.dispatch import on_gpu, runs_ahead
from models.ops.harmonics import spherical_harmonics
from models.ops.hash_grid import encode, encode_jacobian
from models.ops.layout import GridLayout
from models.ops.marching import empty_gaps, march, ray_box
from models.ops.networks import field, mlp, sdf_field
from models.ops.skips import Gated, skip_network

native.keep_large_blocks()
closed_form.sum_in_single_precision()

__all__ = [
    "Gated",
    "GridLayout",
    "composite",
    "distortion",
    "empty_gaps",
    "encode",
    "encode_jacobian",
    "field",
    "march",
    "mlp",
    "neus_alpha",
    "on_gpu",
    "ray_box",
    "runs_ahead",
    "sdf_field",
    "skip_network",
    "spherical_harmonics",
]
