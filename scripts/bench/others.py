"""Kernels of other projects where they are installed, tiny-cuda-nn and nerfacc (0.5); absent ones are left out.

Precisions are theirs: tiny-cuda-nn's networks compute in half precision.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from models.ops import GridLayout
from scripts.bench import plain
from scripts.bench.candidates import NERFACC, TINYCUDANN, Candidate
from scripts.bench.inputs import RADIUS, STEP, Scene

Candidates = dict[str, Candidate]


def tinycudann_encoding(layout: GridLayout, x: Tensor) -> Candidates:
    """The hash grid at points [N, 3] in the unit cube."""
    if (tcnn := _tinycudann(x)) is None:
        return {}
    encoding = tcnn.Encoding(3, _grid(layout), dtype=torch.float32)
    return {TINYCUDANN: Candidate(lambda: encoding(x), list(encoding.parameters()))}


def tinycudann_distance(
    layout: GridLayout, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Candidates:
    """Its hash grid below torch's layers, by double backward: the design of instant-nsr-pl."""
    if (tcnn := _tinycudann(x)) is None:
        return {}
    encoding = tcnn.Encoding(3, _grid(layout), dtype=torch.float32)
    leaves = [*encoding.parameters(), *weights, *biases]
    return {TINYCUDANN: Candidate(lambda: plain.distance_field(x, encoding, weights, biases, "softplus"), leaves)}


def tinycudann_density(layout: GridLayout, x: Tensor, widths: Sequence[int]) -> Candidates:
    """Hash grid and network in one."""
    if (tcnn := _tinycudann(x)) is None:
        return {}
    field = tcnn.NetworkWithInputEncoding(3, widths[-1], _grid(layout), _network(widths, "None"))
    return {TINYCUDANN: Candidate(lambda: field(x), list(field.parameters()))}


def tinycudann_color(inputs: Tensor, widths: Sequence[int]) -> Candidates:
    """The fully fused network of inputs [N, I]."""
    if (tcnn := _tinycudann(inputs)) is None:
        return {}
    network = tcnn.Network(widths[0], widths[-1], _network(widths, "Sigmoid"))
    return {TINYCUDANN: Candidate(lambda: network(inputs), [inputs, *network.parameters()])}


def tinycudann_harmonics(directions: Tensor) -> Candidates:
    """Spherical harmonics of unit vectors [N, 3]."""
    if (tcnn := _tinycudann(directions)) is None:
        return {}
    encoding = tcnn.Encoding(3, {"otype": "SphericalHarmonics", "degree": 4}, dtype=torch.float32)
    return {TINYCUDANN: Candidate(lambda: encoding((directions + 1) / 2))}


def nerfacc_march(scene: Scene) -> Candidates:
    """Samples in occupied cells; it knows no solid ones, so its rays go on through the object."""
    if (nerfacc := _nerfacc(scene.x)) is None:
        return {}
    estimator = nerfacc.OccGridEstimator([-RADIUS] * 3 + [RADIUS] * 3, resolution=len(scene.grid))
    estimator = estimator.to(scene.x.device)
    estimator.binaries = (scene.grid == 1).permute(2, 1, 0)[None].contiguous()  # indexed x, y, z
    options = {"render_step_size": STEP, "stratified": True}
    return {NERFACC: Candidate(lambda: estimator.sampling(scene.origins, scene.directions, **options))}


def nerfacc_composite(alpha: Tensor, values: Tensor, scene: Scene) -> Candidates:
    """Weights of packed samples and sums [R, C] of values [N, C]."""
    if (nerfacc := _nerfacc(scene.x)) is None:
        return {}

    def forward() -> tuple[Tensor, Tensor]:
        weights, _ = nerfacc.render_weight_from_alpha(alpha, ray_indices=scene.ray, n_rays=scene.n_rays)
        return weights, nerfacc.accumulate_along_rays(weights, values, scene.ray, scene.n_rays)

    return {NERFACC: Candidate(forward, [alpha, values])}


def _tinycudann(tensor: Tensor) -> Any:
    return _module("tinycudann", tensor)


def _nerfacc(tensor: Tensor) -> Any:
    return _module("nerfacc", tensor)


def _module(name: str, tensor: Tensor) -> Any:
    """The module if it is installed and `tensor` is where it computes."""
    return import_module(name) if tensor.is_cuda and find_spec(name) else None


def _grid(layout: GridLayout) -> dict[str, Any]:
    return {
        "otype": "HashGrid",
        "n_levels": layout.n_levels,
        "n_features_per_level": layout.n_features,
        "log2_hashmap_size": layout.log2_hashmap_size,
        "base_resolution": layout.base_resolution,
        "per_level_scale": layout.per_level_scale,
    }


def _network(widths: Sequence[int], output_activation: str) -> dict[str, Any]:
    return {
        "otype": "FullyFusedMLP",
        "activation": "ReLU",
        "output_activation": output_activation,
        "n_neurons": widths[1],
        "n_hidden_layers": len(widths) - 2,
    }
