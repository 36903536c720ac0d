"""Codes of sequences and times against recorded numbers of the published code."""

import torch

from models.conditioning.codes import SequenceAutodecoder
from models.conditioning.time import HarmonicTime
from models.fields.implicit import rays_to
from tests.parity.reference import assert_agrees, load
from utils.types import Rays


def photographs(n: int) -> Rays:
    """A ray of each of n photographs."""
    rays = rays_to(torch.zeros(n, 3), torch.zeros(n, 3))
    rays.view = torch.arange(n)
    return rays


def test_codes_of_sequences() -> None:
    data = load("global_encoders")
    encoder = SequenceAutodecoder(SequenceAutodecoder.Config(encoding_dim=4, n_instances=6))
    encoder.code.data.copy_(data["weight"])
    encoder.know_scenes(["car", "apple", "bench"])
    assert_agrees(encoder.row, data["key_index"])
    rays = photographs(4)
    rays.scene = torch.tensor([0, 1, 0, 2])  # car, apple, car, bench
    codes = encoder(rays)
    assert_agrees(codes, data["codes"])
    assert_agrees(encoder.norm(), data["penalty"])
    (codes.flatten() * torch.arange(16)).sum().backward()
    assert_agrees(encoder.code.grad, data["grad_weight"])


def test_codes_of_times() -> None:
    data = load("global_encoders")
    encoder = HarmonicTime(HarmonicTime.Config(n_harmonic_functions=3, time_divisor=2.0))
    rays = photographs(3)
    # [D2]: theirs has times as [B, 1], one photograph after the other.
    rays.time = data["timestamps"][:, 0]
    assert_agrees(encoder(rays), data["time_code"])
