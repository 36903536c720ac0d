"""Meshes as cameras see them, and how that compares with photographs."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.cameras import Cameras
from datasets.views import Views
from systems.image_metrics import psnr, ssim
from utils.bilinear import bilinear
from utils.rasterization import Fragments, nearest
from utils.types import Mesh

N_SCORED = 16
"""Most views that a texture is scored on."""


def visible(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], cameras: Cameras, view: int) -> Fragments:
    """What the centres of a camera's pixels show of a mesh, front or back.

    Triangles keep straight edges in images of lenses that bend them, which is good for small ones. Those that a lens
    does not see with all three corners are left out.

    Args:
        vertices: [V, 3] world coordinates, on the device of the cameras.
        faces: [F, 3] rows of `vertices`.
        cameras: of some views.
        view: which of them.
    """
    place, depth = cameras.project(torch.full_like(vertices[:, 0], view, dtype=torch.int64), vertices)
    is_seen = place.isfinite().all(dim=-1) & (depth > 0)
    whole = is_seen[faces].all(dim=-1).nonzero()[:, 0]
    corner = faces[whole]
    width, height = cameras.size[view].tolist()
    seen = nearest(place[corner], depth[corner], width, height)
    return Fragments(seen.pixel, whole[seen.face], seen.weight)


def render_mesh(
    mesh: Mesh, cameras: Cameras, view: int, supersampling: int = 2
) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]:
    """The picture of a textured mesh without any light: colours as the texture holds them.

    Args:
        mesh: with uv and texture, on the device of the cameras.
        cameras: of some views.
        view: which of them.
        supersampling: places along each side of a pixel, whose mean it takes.

    Returns:
        Colours in [0, 1] times coverage, and coverage: the share of the pixel that the mesh is on.
    """
    assert mesh.uv is not None and mesh.texture is not None
    large = cameras.resized(cameras.size * supersampling)
    seen = visible(mesh.vertices, mesh.faces, large, view)
    rows, columns, _ = mesh.texture.shape
    u, v = seen.interpolate(mesh.uv, mesh.faces).unbind(dim=-1)
    color = bilinear(mesh.texture, torch.stack([u * columns, (1 - v) * rows], dim=-1))
    width, height = cameras.size[view].tolist()
    picture = color.new_zeros(supersampling**2 * width * height, 4)
    picture[seen.pixel] = torch.nn.functional.pad(color, (0, 1), value=1)
    picture = picture.view(height, supersampling, width, supersampling, 4).mean(dim=(1, 3))
    return picture[..., :3], picture[..., 3]


def texture_scores(mesh: Mesh, views: Views, backdrop: Float[Tensor, "3"]) -> dict[str, float]:
    """Means over views, evenly spread among those given, of how close pictures of a textured mesh are to photographs.

    Args:
        mesh: with uv and texture, world coordinates.
        views: with photographs.
        backdrop: [3] colour in [0, 1] behind everything.

    Returns:
        `psnr_on_mesh`, dB, over the pixels that the mesh covers whole; where photographs show the object alone, also
        `psnr` and `ssim` of whole images; `n_views`.
    """
    mesh = mesh.to(backdrop.device)
    rows = torch.linspace(0, len(views) - 1, min(len(views), N_SCORED)).round().int().tolist()
    scores = [_score(mesh, views, row, backdrop) for row in rows]
    names = dict.fromkeys(name for score in scores for name in score)
    values = {name: [score[name] for score in scores if name in score] for name in names}
    return {name: sum(some) / len(some) for name, some in values.items()} | {"n_views": len(rows)}


def _score(mesh: Mesh, views: Views, row: int, backdrop: Float[Tensor, "3"]) -> dict[str, float]:
    width, height = views.size(row)
    truth = views.image(row, backdrop).target.color.view(height, width, 3)
    color, coverage = render_mesh(mesh, views.cameras, row)
    image = color + (1 - coverage[..., None]) * backdrop
    is_covered = coverage > 0.999
    score = {"psnr_on_mesh": psnr(image[is_covered][None], truth[is_covered][None])} if is_covered.any() else {}
    if views.apply_mask and views.has_mask:
        score |= {"psnr": psnr(image, truth), "ssim": ssim(image, truth)}
    return score
