"""A coloured ball and exact photographs of it, by cameras of many kinds."""

import torch
import trimesh

from datasets.cameras import Cameras
from datasets.lenses import Lens
from datasets.synthetic import look_at_origin, spiral
from datasets.views import Views, pixel_offsets
from utils.types import Mesh

RADIUS, DISTANCE = 0.5, 2.0


def ball_color(points: torch.Tensor) -> torch.Tensor:
    """Smooth, and different everywhere."""
    return 0.5 + 0.7 * points


def ball_mesh(subdivisions: int = 4) -> Mesh:
    body = trimesh.creation.icosphere(subdivisions=subdivisions, radius=RADIUS)
    vertices = torch.tensor(body.vertices).float()
    return Mesh(vertices, torch.tensor(body.faces).long(), vertices / vertices.norm(dim=-1, keepdim=True))


def cameras(n: int, size: int = 96, lens: torch.Tensor | None = None, is_fisheye: bool = False) -> Cameras:
    """Around the ball, with pictures of two sizes and shapes."""
    sizes = torch.tensor([[size, size], [size + 31, size - 10]])[torch.arange(n) % 2]
    distortion = torch.zeros(8) if lens is None else torch.nn.functional.pad(lens, (0, 8 - len(lens)))
    # The ball takes four fifths of the picture.
    lenses = [Lens(1.45 * one.min().expand(2).float(), one / 2 + 1.5, distortion, is_fisheye) for one in sizes]
    return Cameras.with_lenses(look_at_origin(DISTANCE * spiral(n, 0)), lenses, sizes)


def photographs(cameras: Cameras, color=ball_color) -> Views:
    """White, but for the ball; its mask is in `alpha`."""
    colors, alphas = [], []
    for view in range(len(cameras)):
        width, height = cameras.size[view].tolist()
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixel = torch.stack([columns, rows], dim=-1).view(-1, 2)
        origin, ray = cameras.rays(torch.full_like(pixel[:, 0], view), pixel)
        along = -(origin * ray).sum(dim=-1)
        inside = along.square() - origin.square().sum(dim=-1) + RADIUS**2
        points = origin + (along - inside.clamp(min=0).sqrt())[:, None] * ray
        seen = torch.where(inside[:, None] > 0, color(points), 1.0)
        colors.append((seen * 255).round().to(torch.uint8))
        alphas.append((inside > 0).to(torch.uint8) * 255)
    names = [str(view) for view in range(len(cameras))]
    return Views(cameras, names, pixel_offsets(cameras.size), torch.cat(colors), torch.cat(alphas))
