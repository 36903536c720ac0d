"""Scores of a view against recorded numbers of the published code."""

import pytest
import torch
import torch.nn.functional as F

from systems.object_scores import object_scores
from tests.parity.reference import assert_agrees, load
from utils.types import Rendered, Target


@pytest.mark.parametrize(
    ("ours", "theirs"), [("psnr_fg", "psnr_fg"), ("mask_iou", "iou"), ("depth_abs_fg", "depth_abs_fg")]
)
def test_scores(ours: str, theirs: str) -> None:
    data = load("eval_batch")
    size = (16, 16)
    color = F.interpolate(data["image_render"], size, mode="bilinear")
    opacity, depth = (F.interpolate(data[f"{key}_render"], size) for key in ("mask", "depth"))
    crop, fg = data["mask_crop"][:1], (data["fg_probability"][:1] >= 0.5).float()
    # They leave out what is not in the crop; we have no such pixels.
    rendered = Rendered(color[0].flatten(1).T, (opacity * crop).flatten(), depth.flatten(), is_dense=True)
    truth = (data["image_rgb"][:1] * fg)[0].flatten(1).T
    known = data["depth_map"][:1] * data["depth_mask"][:1]
    target = Target(truth, (fg * crop).flatten(), known.flatten())
    assert_agrees(torch.tensor(object_scores(rendered, target, *size)[ours]), data[f"result/{theirs}"])
