import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from utils.similarity import Z_TO_Y_UP, rotation_of, scale_of


def test_a_similarity_is_a_rotation_times_a_scale() -> None:
    turn = torch.from_numpy(Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix())
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3], similarity[:3, 3] = 250 * turn, torch.tensor([1e6, 2e6, 3.0])
    assert scale_of(similarity) == pytest.approx(250)
    torch.testing.assert_close(rotation_of(similarity), turn)


def test_up_becomes_the_y_of_gltf_without_mirroring() -> None:
    np.testing.assert_allclose(Z_TO_Y_UP[:3, :3] @ torch.tensor([0.0, 0, 1]).double(), [0, 1, 0])
    assert scale_of(Z_TO_Y_UP) == 1
