"""The transformer over source views and points against recorded numbers of the published code."""

import re

from models.fields.implicit import Sizes
from models.fields.nerformer import NeRFormer
from tests.parity.reference import Arrays, assert_agrees, group, load, put, rays_of
from utils.types import Context

NAMES = {
    "trunk.first": "xyz_encoder.first",
    "trunk.again.1": "xyz_encoder.skip_linear.0",
    "trunk.last": "xyz_encoder.last",
    "trunk.": "xyz_encoder.",
    "heads.intermediate": "intermediate_linear",
    "heads.density": "density_layer",
    "heads.color_hidden": "color_layer.0",
    "heads.color.": "color_layer.2.",
}
PARTS = {
    "layers_pool": "over_views",
    "layers_ray": "over_points",
    "self_attn.in_proj_": "query_key_value.",
    "self_attn.out_proj": "attended",
    "linear1": "hidden",
    "linear2": "output",
    "norm1": "norm_attention",
    "norm2": "norm_output",
}
"""Parts of their layers, and ours."""


def published(values: Arrays) -> Arrays:
    """Theirs with the parts of layers called as ours."""
    return {re.sub("|".join(PARTS), lambda found: PARTS[found[0]], key): value for key, value in values.items()}


def test_points_seen_from_three_views() -> None:
    data = load("nerformer")
    config = NeRFormer.Config(
        n_harmonic_functions_xyz=2,
        n_harmonic_functions_dir=2,
        n_hidden_neurons_xyz=16,
        n_hidden_neurons_dir=8,
    )
    function = NeRFormer(config, Sizes(3, n_pooled=6))
    put(function, published(group(data, "sd")), NAMES)
    rays, points = rays_of(data)
    pooled = data["pooled"].view(2, 3, 5, 4, 6).transpose(1, 2).flatten(0, 1)  # [R, S, P, F]
    output = function(rays, points, Context(), pooled)
    assert_agrees(output.density, data["densities"])
    assert_agrees(output.feature, data["colors"])
