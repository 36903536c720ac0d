"""Which sequences and frames of a category of CO3D are read."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from datasets.co3d_files import FRAMES, FrameAnnotation, Listed
from datasets.folders import check_level, check_root, some
from utils.registry import ConfigError, nearest

ALL = "all"
"""Stands for every sequence."""


def find_category(root: Path, name: str) -> Path:
    """The folder of a category.

    Raises:
        ConfigError: there is none; the message names those there, or the folder that `root` should be.
    """
    check_root(root, _is_set)
    check_level(root, _is_set, f"category, a folder with {FRAMES}")
    if not (root / name / FRAMES).is_file():
        known = sorted(path.parent.name for path in root.glob(f"*/{FRAMES}"))
        raise ConfigError(
            f"dataset.category: {root / name / FRAMES} does not exist{nearest(name, known)}; "
            f"categories there: {some(known)}"
        )
    return root / name


def choose_sequences(asked: str | list[str] | None, known: list[str], where: str) -> list[str]:
    """The names of the sequences to read.

    Args:
        asked: `dataset.sequence`.
        known: the sequences there are.
        where: what holds them, for errors.

    Raises:
        ConfigError: one is unknown, or none is named where there are several.
    """
    if not known:
        raise ConfigError(f"{where} holds no sequences; choose another category or set list")
    if asked == ALL or (asked is None and len(known) == 1):
        return known
    if asked is None:
        raise ConfigError(
            f"dataset.sequence is required, as {where} holds {len(known)} sequences: {some(known)}; "
            f"name one, or take {ALL} for a model that knows scenes apart"
        )
    names = []
    for name in dict.fromkeys([asked] if isinstance(asked, str) else asked):
        # YAML takes the name 34_1479_4753 for a number, whose digits are all that is left of it.
        alike = [name] if name in known else [one for one in known if one.replace("_", "") == name]
        if len(alike) != 1:
            raise ConfigError(
                f"dataset.sequence: {where} holds no sequence '{name}'{nearest(name, known)}; "
                f"its {len(known)}: {some(known)}"
            )
        names += alike
    return names


def thinned(frames: list[FrameAnnotation], most: int | None) -> list[FrameAnnotation]:
    """At most so many frames of each sequence, evenly spread; those of a sequence stand together."""
    if most is None:
        return frames
    kept = []
    for _, group in itertools.groupby(frames, key=lambda frame: frame.sequence):
        own = list(group)
        kept += [own[place] for place in np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int)]
    return kept


def divide(
    frames: list[FrameAnnotation], lists: Mapping[str, list[Listed]], most: int | None
) -> tuple[list[FrameAnnotation], dict[str, list[int]]]:
    """The frames that are in a list, and which rows of them belong to each list.

    Args:
        frames: those of a sequence stand together.
        lists: by split.
        most: frames of a sequence to take from each list, or None for all.
    """
    kept = {}
    for split, entries in lists.items():
        images = {entry.image for entry in entries}
        kept[split] = {frame.image for frame in thinned([one for one in frames if one.image in images], most)}
    frames = [frame for frame in frames if any(frame.image in images for images in kept.values())]
    rows = {split: [row for row, frame in enumerate(frames) if frame.image in kept[split]] for split in kept}
    return frames, rows


def _is_set(folder: Path) -> bool:
    return any(folder.glob(f"*/{FRAMES}"))
