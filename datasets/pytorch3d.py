"""Cameras as PyTorch3D has them, brought to ours once, where data is read.

There a camera looks along its +z axis with x to the left and y up, and a row vector of the world becomes one of the
camera as x_cam = x_world R + T. In its image (NDC) x grows to the left, y upwards, and the shorter side spans [-1, 1].
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.cameras import Cameras


def from_pytorch3d(
    rotation: Float[Tensor, "V 3 3"],
    translation: Float[Tensor, "V 3"],
    focal: Float[Tensor, "V 2"],
    principal_point: Float[Tensor, "V 2"],
    size: Int[Tensor, "V 2"],
) -> Cameras:
    """Our cameras that see the same.

    Args:
        rotation: [V, 3, 3] R.
        translation: [V, 3] T, world units.
        focal: [V, 2] focal lengths in NDC.
        principal_point: [V, 2] in NDC.
        size: [V, 2] width and height in pixels.
    """
    center = -(rotation @ translation[..., None])  # [V, 3, 1]
    pose = torch.cat([rotation * rotation.new_tensor([-1, 1, -1]), center], dim=-1)
    pixels = 0.5 * size.amin(-1, keepdim=True)  # of an NDC unit
    return Cameras(pose, focal * pixels, 0.5 * size - principal_point * pixels, size)
