"""Finding the folder of a data set, or saying which one was meant."""

from collections.abc import Callable, Iterator
from pathlib import Path

from utils.registry import ConfigError, nearest

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
N_LISTED = 5
"""Names that an error lists where there may be many."""


def check_root(root: Path, is_set: Callable[[Path], bool]) -> None:
    """Checks that the folder of a data set exists.

    Args:
        root: `dataset.root_dir`.
        is_set: whether a folder holds such a data set, to name those beside.

    Raises:
        ConfigError: it does not exist.
    """
    if root.is_dir():
        return
    parent = next(folder for folder in root.absolute().parents if folder.is_dir())
    if parent != root.absolute().parent:
        raise ConfigError(
            f"dataset.root_dir: neither {root} nor its parent folder exists, only {parent}; unpack it there"
        )
    scenes = sorted(folder.name for folder in parent.iterdir() if folder.is_dir() and is_set(folder))
    hint = nearest(root.name, scenes)
    raise ConfigError(f"dataset.root_dir: folder {root} does not exist{hint}; scenes beside it: {listed(scenes)}")


def check_level(root: Path, is_set: Callable[[Path], bool], expected: str) -> None:
    """Checks that a folder holds a data set itself, not above or below.

    Args:
        root: `dataset.root_dir`, an existing folder.
        is_set: whether a folder holds such a data set.
        expected: what makes it one, for the error.

    Raises:
        ConfigError: it does not; the remedy is the folder around or within that does, or, for photographs without
            cameras, the script that finds them.
    """
    if is_set(root):
        return
    for folder in _around(root):
        if is_set(folder):
            raise ConfigError(f"dataset.root_dir: {root} holds no {expected}, but {folder} does; set it to that folder")
    pictures = any(has_images(folder) for folder in (root, root / "images"))
    remedy = f"find the cameras of its images by: python scripts/imgs2poses.py {root}" if pictures else "check the path"
    raise ConfigError(f"dataset.root_dir: {root} holds no {expected}; {remedy}")


def check_images(folder: Path, cameras: Path) -> None:
    """Checks that the folder of photographs exists.

    Args:
        folder: at their full size; beside it, `<folder>_4` may hold smaller ones.
        cameras: what describes the photographs.

    Raises:
        ConfigError: it does not.
    """
    if not folder.is_dir():
        others = sorted(other.name for other in folder.parent.glob(f"{folder.name}_*"))
        remedy = f"set dataset.img_downscale to that of {', '.join(others)}" if others else "put them there"
        raise ConfigError(f"{folder} does not exist; it should hold the photographs of {cameras}; {remedy}")


def has_images(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_ENDINGS for path in folder.iterdir())


def listed(names: list[str]) -> str:
    """Names in an error."""
    return ", ".join(names) or "none"


def some(names: list[str]) -> str:
    """The first few of names that may be many, in an error."""
    return ", ".join(names[:N_LISTED]) + (", ..." if len(names) > N_LISTED else "")


def _around(root: Path) -> Iterator[Path]:
    """Folders up to two levels within, then up to two around."""
    for pattern in ("*/", "*/*/"):
        yield from sorted(path for path in root.glob(pattern) if path.is_dir())
    yield from root.absolute().parents[:2]
