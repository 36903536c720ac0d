"""The family's losses and metrics against recorded numbers of the published code."""

import pytest
import torch
from torch import Tensor

from systems.loss_functions import LossSet
from tests.parity.reference import Arrays, assert_agrees, group, load, sampled
from utils.schedule import Schedule
from utils.types import Rendered, Target

ALL = frozenset({"mask", "true depth", "gradient", "density_grid", "prev_stage_"})
PER_IMAGE = ("mask_neg_iou", "depth_abs", "depth_abs_fg")
"""Losses that the published code averages over images, and we take over the rays of a step."""


def scene(data: Arrays) -> list[tuple[Rendered, Target]]:
    """What was seen and photographed, image by image, without the pixels that their crop leaves out."""
    xys = data["xys"]
    crop = sampled(data["mask_crop"], xys, "nearest")[..., 0] > 0.5
    color = sampled(data["image_rgb"], xys, "bilinear")
    fg, depth = (sampled(data[key], xys, "nearest")[..., 0] for key in ("fg_probability", "depth_map"))
    parts = []
    for row, kept in enumerate(crop):
        stages = []
        for prefix in ("prev", "pred"):
            seen = [data[f"{prefix}_{key}"][row].flatten(0, 1)[kept] for key in ("features", "masks", "depths")]
            stages.append(Rendered(seen[0], seen[1][:, 0], seen[2][:, 0], is_dense=True))
        stages[1].coarse = stages[0]
        stages[1].gradient = data["grad_theta"]
        stages[1].density_grid = data["density_grid"]
        parts.append((stages[1], Target(color[row][kept], fg[row][kept], depth[row][kept])))
    return parts


def value(name: str, rendered: Rendered, target: Target) -> Tensor:
    return LossSet({f"lambda_{name}": Schedule.constant(1.0)}, ALL)(rendered, target, 0, 0).terms[name]


NAMES = [name.removeprefix("loss_") for name in group(load("view_metrics"), "metric")]


@pytest.mark.parametrize("name", NAMES)
def test_every_metric(name: str) -> None:
    data = load("view_metrics")
    theirs = data[f"metric/loss_{name}"]
    if name.endswith("mask_beta_prior"):
        data["mask_crop"] = torch.ones_like(data["mask_crop"])  # the only one that leaves nothing out
    parts = scene(data)
    if name.endswith(PER_IMAGE):
        ours = torch.stack([value(name, *part) for part in parts]).mean()
    else:
        ours = value(name, Rendered.cat([part[0] for part in parts]), Target.cat([part[1] for part in parts]))
    assert_agrees(ours, theirs)
