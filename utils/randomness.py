"""Randomness as a function of (seed, step, rank): a resumed run needs no generator state to continue exactly."""

import torch


def mix(*numbers: int) -> int:
    """One 63-bit seed from several non-negative integers; different tuples give unrelated seeds."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:
        # The finaliser of splitmix64 (Steele et al. 2014) after every number.
        mixed = (mixed + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        mixed ^= mixed >> 31
    return mixed >> 1


def reseed(*numbers: int) -> None:
    """Sets torch's default generators, those of all devices in use, from several integers.

    Not by torch.manual_seed: on a machine without CUDA that writes down the call stack for later, which takes
    milliseconds every time.
    """
    seed = mix(*numbers)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
