"""An inspected scene in words: a table of its numbers, and what may go wrong, each with a remedy."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from datasets.cameras import Cameras
from datasets.inspection import Inspection
from datasets.views import Views
from utils.similarity import scale_of

FEW_VIEWS = 8
SMALL, LARGE = 0.5, 1.2
"""Shares of the box's half side that the region of interest should reach."""
FEW_RAYS = 0.1
"""Share of the rays that should meet the box."""
LARGE_RESIDUAL = 2.0
"""Pixels of median reprojection error."""
LITTLE_PARALLAX = 0.05
EMPTY, FULL = 1e-3, 0.995
"""Shares of an image that a mask of an object covers."""


def table(scene: Inspection) -> Table:
    """The numbers of a scene for people."""
    table = Table(title="Scene", show_header=False)
    for name, value in _rows(scene):
        table.add_row(name, value)
    return table


def warnings(scene: Inspection) -> list[str]:
    """What may go wrong with a scene: one line each, with a remedy."""
    return [*_of_cameras(scene), *_of_box(scene), *_of_masks(scene), *_of_points(scene)]


def _of_cameras(scene: Inspection) -> Iterator[str]:
    n = len(scene.train)
    if n < FEW_VIEWS:
        yield f"there are {n} photographs to train on; take more, from all around"
    if len(scene.averted) > n / 2:
        yield (
            f"{_some(scene.averted, n, 'cameras')} do not have the region of interest in their image; poses are "
            "probably of another convention than expected (x right, y up, looking along -z)"
        )
    elif scene.averted:
        yield (
            f"{_some(scene.averted, n, 'cameras')} do not have the middle of the region of interest in their image; "
            "remove the photographs if they show something else"
        )
    if scene.twins:
        first, second = scene.twins[0]
        yield (
            f"{len(scene.twins)} pairs of cameras stand at one place and look the same way, first {first} and "
            f"{second}; remove repeated photographs, which count twice"
        )
    if scene.parallax < LITTLE_PARALLAX:
        yield "the cameras stand at one place, which tells nothing of depth; walk around the object"


def _of_box(scene: Inspection) -> Iterator[str]:
    needed = scene.center.abs().max().item() + scene.reach
    if scene.inside:
        nearest = scene.train.cameras.pose[:, :, 3].abs().amax(-1).min().item()
        remedy = (
            f"set model.radius=auto, which is {needed:.3g}" if needed < nearest else "move the origin into the object"
        )
        yield (
            f"{_some(scene.inside, len(scene.train), 'cameras')} stand inside the box of half side {scene.radius:g}; "
            f"{remedy}, or set model.radius below {nearest:.3g}"
        )
    if needed < SMALL * scene.radius:
        yield (
            f"the region of interest fills {needed / scene.radius:.0%} of the box, which wastes resolution; "
            f"set model.radius={needed:.3g} or auto"
        )
    if needed > LARGE * scene.radius:
        yield (
            f"the region of interest reaches {needed:.3g} from the origin, but the box only {scene.radius:g}, so the "
            f"object may be cut off; set model.radius={needed:.3g} or auto"
        )
    if scene.share_met < FEW_RAYS:
        yield (
            f"{scene.share_met:.1%} of the rays meet the box, so most photographs teach nothing; move the origin into "
            "the object, crop the photographs, or set model.radius=auto"
        )


def _of_masks(scene: Inspection) -> Iterator[str]:
    if scene.coverage is None:
        if not scene.learned_background:
            yield (
                "there are no masks and no background is learned, so the surroundings are built into the box; "
                "set model.learned_background to true or auto, or add masks"
            )
        return
    names, n = scene.train.names, len(scene.train)
    if scene.coverage.mean() > FULL:
        yield (
            "the masks hide nothing, as of images saved with an unused alpha channel; save them without, or set "
            "dataset.apply_mask=false and model.learned_background=true"
        )
    empty = [name for name, share in zip(names, scene.coverage.tolist(), strict=True) if share < EMPTY]
    if empty:
        yield f"{_some(empty, n, 'masks')} are empty; draw them again or remove the photographs"
    if not scene.train.apply_mask and not scene.learned_background:
        yield (
            "photographs show their surroundings (dataset.apply_mask is false) and no background is learned; "
            "set one of dataset.apply_mask and model.learned_background to true"
        )


def _of_points(scene: Inspection) -> Iterator[str]:
    if scene.residual is None:
        return
    middle = scene.residual.nanmedian().item()
    if not middle <= LARGE_RESIDUAL:
        yield (
            f"sparse points are {middle:.1f} px off where photographs show them, in the median; poses, lenses or image "
            "sizes do not belong together: estimate the cameras again on these photographs"
        )


def _some(names: list[str], n: int, what: str) -> str:
    return f"{len(names)} of {n} {what} (first {names[0]})"


def _rows(scene: Inspection) -> list[tuple[str, str]]:
    """Names and values of the table."""
    views = scene.train
    return [
        ("views", ", ".join(f"{len(one)} {split}{_kind(split, scene)}" for split, one in scene.splits.items())),
        *([] if views.scene is None else [("sequences", str(len(views.scene.unique())))]),
        ("image size", _sizes(views.cameras)),
        ("focal length", _focal(views.cameras)),
        ("distortion", _distortion(scene)),
        ("masks", _masks(scene)),
        ("background", "learned" if scene.learned_background else "one colour"),
        ("cameras", _distances(views.cameras)),
        ("sparse points", _points(scene)),
        ("reprojection error", _residuals(scene.residual)),
        ("coordinates", _coordinates(views)),
        ("region of interest", f"centre {_vector(scene.center)}, radius {scene.reach:.3g}"),
        ("box", f"half side {scene.radius:g} (model.radius); {scene.share_met:.0%} of the rays meet it"),
    ]


def _kind(split: str, scene: Inspection) -> str:
    views = scene.splits[split]
    if not views.is_real:
        return " (a camera path, without photographs)"
    return " (the same)" if split != "train" and views is scene.train else ""


def _sizes(cameras: Cameras) -> str:
    sizes = sorted({(width, height) for width, height in cameras.size.tolist()}, key=math.prod)
    smallest, largest = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
    return f"{smallest} px" if len(sizes) == 1 else f"{len(sizes)} sizes, {smallest} to {largest} px"


def _focal(cameras: Cameras) -> str:
    angle = torch.rad2deg(2 * torch.atan(0.5 * cameras.size / cameras.focal))  # [V, 2]
    wide, high = (_range(part, "°") for part in angle.unbind(-1))
    return f"{_range(cameras.focal, ' px')}; field of view {wide} across, {high} upwards"


def _distortion(scene: Inspection) -> str:
    cameras = scene.train.cameras
    if cameras.distortion is None:
        return "none"
    n_fisheyes = 0 if cameras.is_fisheye is None else int(cameras.is_fisheye.sum())
    kind = f"{n_fisheyes} fisheyes, " if n_fisheyes else ""
    return f"{kind}up to {scene.bend:.1f} px"


def _masks(scene: Inspection) -> str:
    if scene.coverage is None:
        return "none"
    use = "hide what is around the object" if scene.train.apply_mask else "hide nothing (dataset.apply_mask is false)"
    return f"cover {_range(100 * scene.coverage, ' %')} of an image; they {use}"


def _distances(cameras: Cameras) -> str:
    return f"{_range(cameras.pose[:, :, 3].norm(dim=-1), '')} from the origin"


def _points(scene: Inspection) -> str:
    points = scene.train.points
    if points is None:
        return "none"
    share = (points.position.abs().amax(-1) < scene.radius).float().mean().item()
    return f"{len(points)}, {share:.0%} of them in the box; {len(points.view)} observations"


def _residuals(residual: Float[Tensor, "K"] | None) -> str:
    if residual is None:
        return "unknown: there are no observations of sparse points"
    finite = residual[residual.isfinite()]
    if not len(finite):
        return "no point is in front of the camera that observed it"
    middle, most = torch.quantile(finite[:: len(finite) // 2**20 + 1], torch.tensor([0.5, 0.9])).tolist()
    return f"mean {finite.mean():.2f}, median {middle:.2f}, 90 % below {most:.2f} px"


def _coordinates(views: Views) -> str:
    if views.to_dataset is None:
        return "those of the data set"
    origin = _vector(views.to_dataset[:3, 3])
    return f"the unit is {scale_of(views.to_dataset):.4g} of the data set's; the origin is {origin} there"


def _range(values: Tensor, unit: str) -> str:
    low, high = _number(values.min().item()), _number(values.max().item())
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _vector(vector: Tensor) -> str:
    return f"({', '.join(map(_number, vector.tolist()))})"


def _number(value: float) -> str:
    """Three digits, more where they stand before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
