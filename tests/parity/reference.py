"""Numbers of the published code, and what it means to agree with them.

Arrays carry the family's batch dimension B and its names; the functions here bring them to ours.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.cameras import Cameras
from datasets.pytorch3d import from_pytorch3d
from datasets.views import Views, pixel_offsets
from utils.types import RayPoints, Rays

DATA = Path(__file__).parent / "data"
Arrays = dict[str, Tensor]


def load(name: str) -> Arrays:
    """The arrays of `data/<name>.npz`."""
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def group(arrays: Arrays, prefix: str) -> Arrays:
    """Those whose key begins with `prefix/`, without it."""
    return {key.removeprefix(f"{prefix}/"): array for key, array in arrays.items() if key.startswith(f"{prefix}/")}


def assert_agrees(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """max |a - b| <= tolerance max |b|, whatever the shapes, which need only have as many numbers."""
    a, b = ours.detach().double().flatten(), theirs.double().flatten()
    assert a.shape == b.shape
    assert a.isfinite().all()
    error, scale = (a - b).abs().max().item(), b.abs().max().item()
    assert error <= tolerance * scale, f"{error:.3g} apart, {error / max(scale, 1e-30):.3g} of the largest"


def put(module: nn.Module, values: Arrays, names: dict[str, str]) -> None:
    """Fills a module's parameters; `names` leads from ours to theirs by prefix, the first that fits."""
    left = set(values)
    with torch.no_grad():
        for ours, parameter in module.named_parameters():
            prefix = next(prefix for prefix in names if ours.startswith(prefix))
            theirs = names[prefix] + ours.removeprefix(prefix)
            parameter.copy_(values[theirs])
            left.remove(theirs)
    assert not left, f"nobody took {sorted(left)}"


def rays_of(arrays: Arrays, prefix: str = "ray_") -> tuple[Rays, RayPoints]:
    """Rays, of scene b for those of batch element b, and the points on them."""
    origins, directions = (arrays[prefix + key].reshape(-1, 3) for key in ("origins", "directions"))
    n, n_scenes = len(origins), len(arrays[prefix + "origins"])
    scene = torch.arange(n_scenes).repeat_interleave(n // n_scenes)
    radius, edges = (arrays.get(prefix + key) for key in ("pixel_radii_2d", "bins"))
    rays = Rays(
        origins=origins,
        directions=directions,
        backdrop=torch.zeros(n, 3),
        view=scene,
        pixel=torch.zeros(n, 2, dtype=torch.int64),
        scene=scene,
        radius=None if radius is None else radius.reshape(n),
    )
    t = arrays[prefix + "lengths"]
    return rays, RayPoints(t.reshape(n, t.shape[-1]), None if edges is None else edges.reshape(n, edges.shape[-1]))


def cameras_of(arrays: Arrays, width: int, height: int) -> Cameras:
    """Our cameras for images of this size."""
    rotation, translation, focal, center = (
        arrays[f"cam_{key}"] for key in ("R", "T", "focal_length", "principal_point")
    )
    size = torch.tensor([[width, height]]).expand(len(rotation), 2)
    return from_pytorch3d(rotation, translation, focal, center, size)


def grid(cameras: Cameras) -> Rays:
    """Rays through all pixels of images of one size, on black: image after image, row after row."""
    views = Views(cameras, [""] * len(cameras), pixel_offsets(cameras.size), None)
    return Rays.cat([views.image(row, torch.zeros(3)).rays for row in range(len(views))])


def sampled(image: Tensor, xys: Tensor, mode: str) -> Tensor:
    """[B, M, C] values of [B, C, H, W] images at [B, ..., 2] image coordinates, as they read their targets."""
    shape = torch.tensor([image.shape[-1], image.shape[-2]])
    return F.grid_sample(image, -xys * shape.min() / shape, mode, "zeros", align_corners=False).flatten(2).mT
