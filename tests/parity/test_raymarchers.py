"""Ray marchers against recorded numbers of the published code, gradients included."""

import pytest
import torch

from models.fields.implicit import FieldOutput, Sizes
from models.rendering.raymarchers import CumulativeSum, EmissionAbsorption, RayMarcher
from tests.parity.reference import Arrays, assert_agrees, group, load
from utils.types import RayPoints, Rays

WITH_BACKGROUND = [0.1, 0.5, 0.9]
SETTINGS = {
    "ea": EmissionAbsorption.Config(bg_color=[0.0]),
    "ea_bg": EmissionAbsorption.Config(bg_color=WITH_BACKGROUND),
    "ea_bg_blend": EmissionAbsorption.Config(bg_color=WITH_BACKGROUND, blend_output=True),
    "ea_bg1": EmissionAbsorption.Config(bg_color=[1.0]),
    "ea_replicate": EmissionAbsorption.Config(bg_color=[0.0], replicate_last_interval=True),
    "ea_thick2": EmissionAbsorption.Config(bg_color=[0.0], surface_thickness=2),
    "ea_norelu": EmissionAbsorption.Config(bg_color=[0.0], density_relu=False, replicate_last_interval=True),
    "ea_bgopacity0": EmissionAbsorption.Config(bg_color=[0.0], background_opacity=0.5),
    "cumsum": CumulativeSum.Config(bg_color=[0.0]),
    "cumsum_replicate": CumulativeSum.Config(bg_color=[0.0], replicate_last_interval=True),
}
"""What the recorded settings were."""


def marcher(config) -> RayMarcher:
    kind = EmissionAbsorption if isinstance(config, EmissionAbsorption.Config) else CumulativeSum
    return kind(config, Sizes())


def inputs(data: Arrays) -> tuple[Rays, RayPoints, FieldOutput]:
    zero = torch.zeros(8, 3)
    row = torch.zeros(8, dtype=torch.int64)
    rays = Rays(zero, zero, zero, row, torch.zeros(8, 2, dtype=torch.int64))
    density, feature = data["densities"].reshape(8, 6), data["features"].reshape(8, 6, 3)
    return rays, RayPoints(data["lengths"].view(8, 6)), FieldOutput(density.requires_grad_(), feature.requires_grad_())


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_seen(name: str) -> None:
    data = load("raymarchers")
    seen, weights = marcher(SETTINGS[name])(*inputs(data))
    theirs = group(data, name)
    assert_agrees(weights, theirs["weights"])
    assert_agrees(seen.opacity, theirs["masks"])
    assert_agrees(seen.depth, theirs["depths"])
    assert_agrees(seen.color, theirs["features"])


def test_given_intervals() -> None:
    data = load("raymarchers")
    rays, points, output = inputs(data)
    # Edges whose differences are the recorded intervals.
    edges = torch.nn.functional.pad(data["deltas"].view(8, 6).cumsum(1), (1, 0))
    seen, weights = marcher(SETTINGS["ea"])(rays, RayPoints(points.t, edges), output)
    theirs = group(data, "ea_deltas")
    assert_agrees(weights, theirs["weights"])
    assert_agrees(seen.opacity, theirs["masks"])
    assert_agrees(seen.depth, theirs["depths"])
    assert_agrees(seen.color, theirs["features"])


def test_gradients() -> None:
    data = load("raymarchers")
    rays, points, output = inputs(data)
    seen, _ = marcher(SETTINGS["ea_replicate"])(rays, points, output)
    ((seen.color * data["grad_loss_weights"].view(8, 3)).sum() + seen.depth.sum() + seen.opacity.sum()).backward()
    assert_agrees(output.density.grad, data["grad_densities"])
    assert_agrees(output.feature.grad, data["grad_features"])
