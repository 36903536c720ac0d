"""Where the files of a COLMAP project lie: model, photographs, masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.colmap_files import has_model, read_model
from datasets.folders import IMAGE_ENDINGS, check_images, check_level, check_root, some
from datasets.frames import inside
from utils.notice import notice
from utils.registry import ConfigError

LAYOUTS = (
    ("sparse", ("images",)),
    ("colmap/sparse", ("images", "colmap/images")),
    # Undistorted by COLMAP: the original photographs would not fit.
    ("dense/sparse", ("dense/images",)),
    ("dense/0/sparse", ("dense/0/images",)),
)
"""Where models lie, themselves or in numbered folders, and where the photographs of each."""
MASK_NAMINGS = (
    lambda name: name,
    lambda name: name.with_name(f"{name.name}.png"),
    lambda name: name.with_suffix(".png"),
    # As in instant-nsr-pl.
    lambda name: name.parent / name.name[3:],
)
"""What the mask of a photograph may be called; all masks of a project follow one of these."""


@dataclass
class ColmapProject:
    """The folders of a project.

    Attributes:
        model: holds cameras, images and points3D.
        images: holds the photographs.
        masks: holds the masks, if it exists.
        divisor: how many times smaller the photographs are than those that COLMAP saw.
    """

    model: Path
    images: Path
    masks: Path
    divisor: int = 1


def find_project(root: Path, img_downscale: int | None) -> ColmapProject:
    """The project in a folder; photographs that were shrunk beforehand where there are any of the wanted size.

    Masks at the full size keep photographs at the full size, too, because one must fit the other.

    Raises:
        ConfigError: there is no model or no folder of photographs; the message says where they are.
    """
    check_root(root, _is_project)
    check_level(root, _is_project, "COLMAP model (sparse/0)")
    models, places = next(_models(root))
    model = _fullest(models)
    images = next((root / place for place in places if (root / place).is_dir()), root / places[0])
    masks = images.with_name("masks")
    if img_downscale is not None:
        shrunk, shrunk_masks = (folder.with_name(f"{folder.name}_{img_downscale}") for folder in (images, masks))
        if shrunk.is_dir() and (shrunk_masks.is_dir() or not masks.is_dir()):
            return ColmapProject(model, shrunk, shrunk_masks, img_downscale)
    check_images(images, model)
    return ColmapProject(model, images, masks)


def find_photographs(folder: Path, names: list[str]) -> list[Path]:
    """The files of registered photographs; also where they were saved again in another format.

    Raises:
        ConfigError: some are missing, or a name leads out of the folder.
    """
    found = [_find_photograph(inside(folder, name, "COLMAP model")) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise ConfigError(
            f"{folder} lacks {len(missing)} of the {len(names)} photographs of the COLMAP model: {some(missing)}; "
            "copy them there under these names"
        )
    return [path for path in found if path is not None]


def find_masks(folder: Path, names: list[str]) -> list[Path] | None:
    """The masks of photographs, or None where their folder does not exist.

    Raises:
        ConfigError: the folder lacks some.
    """
    if not folder.is_dir():
        return None
    candidates = [[folder / naming(PurePosixPath(name)) for name in names] for naming in MASK_NAMINGS]
    best = max(candidates, key=lambda paths: sum(path.is_file() for path in paths))
    missing = [name for name, path in zip(names, best, strict=True) if not path.is_file()]
    if missing:
        raise ConfigError(
            f"{folder} lacks the masks of {len(missing)} of {len(names)} photographs: {some(missing)}; add them as "
            f"{best[names.index(missing[0])].name}, or rename the folder to go without masks"
        )
    return best


def _is_project(root: Path) -> bool:
    return any(_models(root))


def _models(root: Path) -> Iterator[tuple[list[Path], tuple[str, ...]]]:
    """For each layout that is there, the folders with models and the places of photographs."""
    for sparse, places in LAYOUTS:
        folders = [folder for folder in (*sorted((root / sparse).glob("*/")), root / sparse) if has_model(folder)]
        if folders:
            yield folders, places


def _fullest(folders: list[Path]) -> Path:
    """The folder of the model with most images: COLMAP writes several where it could not join them."""
    if len(folders) == 1:
        return folders[0]
    n_images = {folder: len(read_model(folder).images) for folder in folders}
    fullest = max(folders, key=lambda folder: n_images[folder])
    found = ", ".join(f"{folder.name} ({n} images)" for folder, n in n_images.items())
    notice(f"{fullest.parent} holds several COLMAP models, {found}; {fullest.name} is used")
    return fullest


def _find_photograph(path: Path) -> Path | None:
    endings = [*IMAGE_ENDINGS, *(ending.upper() for ending in IMAGE_ENDINGS)]
    return next((p for p in (path, *(path.with_suffix(ending) for ending in endings)) if p.is_file()), None)
