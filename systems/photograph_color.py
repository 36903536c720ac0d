"""The colour of a surface as photographs show it.

A point takes the colours of the few photographs that show it best: head-on, finely resolved, unhidden, on the object
where there are masks, and away from the border of the image. Colours that disagree with most of them are left out
(highlights, what stands in front, outlines that are a pixel off); the mean of the others remains.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.views import Views
from systems.mesh_rendering import visible
from utils.bilinear import bilinear
from utils.geometry import length
from utils.types import Mesh

N_BEST = 8
"""Photographs that a colour is blended from."""
DEPTH_BYTES = 2**29
"""Memory that the depth maps of all views may take together; their resolution follows."""
MIN_COSINE = 0.2
"""Of the angle between the normal and the direction to the camera; photographs that show less say little."""
MIN_COVERAGE = 0.9
"""Share of a pixel that the object covers, where masks are known."""
SLACK = 2.0
"""Pixels of a depth map that a point may lie behind the surface there, as seen on a surface that is met head-on."""
BORDER = 0.05
"""Share of the image's shorter side within which photographs count less towards their border."""
AGREEMENT = 0.2
"""Distance of two colours at which they cease to agree."""

Color = Callable[[Float[Tensor, "N 3"], Float[Tensor, "N 3"]], Float[Tensor, "N 3"]]
"""World points and unit normals, on the CPU, to colours in [0, 1]."""


class PhotographColor:
    """Colours of points of a surface.

    Args:
        mesh: the surface, which also hides points from cameras.
        views: with photographs.
        fallback: colour of points that no photograph shows.
        progress: told the finished share of the depth maps, in [0, 1].

    Attributes:
        n_points, n_seen: how many points were asked for, and how many of them photographs show.
    """

    def __init__(
        self, mesh: Mesh, views: Views, fallback: Color, progress: Callable[[float], None] = lambda share: None
    ):
        self.views, self.fallback = views, fallback
        size = views.cameras.size
        affordable = DEPTH_BYTES / 4 / len(views)
        shrink = (affordable / size.prod(dim=-1)).sqrt().clamp(max=1)
        self._cameras = views.cameras.resized((size * shrink[:, None]).long().clamp(min=1))
        vertices, faces = mesh.vertices.to(size.device), mesh.faces.to(size.device)
        self._depth = []
        for view in range(len(views)):
            self._depth.append(self._depth_map(vertices, faces, view))
            progress((view + 1) / len(views))
        self.n_points = self.n_seen = 0

    @torch.no_grad()
    def __call__(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        views, device = self.views, self._cameras.size.device
        assert views.color is not None
        best = _Best(len(points), device)
        for view in range(len(views)):
            row, place, weight = self._sightings(view, points.to(device), normals.to(device))
            photograph = views.picture(views.color, view)
            best.offer(row, weight, lambda chosen, at=place, image=photograph: bilinear(image, at[chosen]))
        color = best.blend().to(points.device)
        unseen = (~best.is_seen).nonzero()[:, 0].to(points.device)
        color[unseen] = self.fallback(points[unseen], normals[unseen])
        self.n_points += len(points)
        self.n_seen += len(points) - len(unseen)
        return color

    def _depth_map(self, vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], view: int) -> Float[Tensor, "P"]:
        """Distances of the mesh from a camera, infinite where there is none; each pixel has the least around it."""
        seen = visible(vertices, faces, self._cameras, view)
        width, height = self._cameras.size[view].tolist()
        depth = torch.full((height * width,), -torch.inf, device=vertices.device)
        depth[seen.pixel] = -length(seen.interpolate(vertices, faces) - self._cameras.pose[view, :, 3])
        # What stands in front seems a pixel larger, because neither its outline nor the camera is exact.
        return -torch.nn.functional.max_pool2d(depth.view(1, 1, height, width), 3, stride=1, padding=1).flatten()

    def _sightings(
        self, view: int, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]
    ) -> tuple[Int[Tensor, "S"], Float[Tensor, "S 2"], Float[Tensor, "S"]]:
        """Rows of the points that a photograph shows, where it shows them, in its pixels, and how well."""
        cameras = self._cameras
        size, centre = cameras.size[view], cameras.pose[view, :, 3]
        row = ((normals * (centre - points)).sum(dim=-1) > 0).nonzero()[:, 0]
        ray = centre - points.index_select(0, row)
        distance = length(ray)
        cosine = (normals.index_select(0, row) * ray).sum(dim=-1) / distance
        place, _ = cameras.project(torch.full_like(row, view), centre - ray)
        margin = torch.minimum(place, size - place).amin(dim=-1) / size.amin()

        column, line = place.nan_to_num(0, 0, 0).clamp(min=0).minimum(size - 1).long().unbind(dim=-1)
        surface = self._depth[view].index_select(0, line * size[0] + column)
        footprint = distance / cameras.focal[view].amin()  # of a pixel, world units
        is_seen = (margin > 0) & (cosine > MIN_COSINE) & (distance <= surface + SLACK * footprint / cosine)
        chosen = is_seen.nonzero()[:, 0]
        row, place, cosine, footprint, margin = (
            part.index_select(0, chosen) for part in (row, place, cosine, footprint, margin)
        )
        place = place * (self.views.cameras.size[view] / size)
        weight = (cosine.square() / footprint).square() * (margin / BORDER).clamp(max=1)
        if self.views.alpha is not None:
            weight *= bilinear(self.views.picture(self.views.alpha, view), place)[:, 0] >= MIN_COVERAGE
        return row, place, weight


class _Best:
    """The colours with the largest weights at each of `n` points."""

    def __init__(self, n: int, device: torch.device):
        self._weight = torch.zeros(N_BEST, n, device=device)
        self._color = torch.zeros(N_BEST, n, 3, dtype=torch.uint8, device=device)

    @property
    def is_seen(self) -> Bool[Tensor, "N"]:
        return (self._weight > 0).any(dim=0)

    def offer(
        self,
        row: Int[Tensor, "S"],
        weight: Float[Tensor, "S"],
        color: Callable[[Int[Tensor, "C"]], Float[Tensor, "C 3"]],
    ) -> None:
        """Takes what is better than the worst it has.

        Args:
            row: [S] different points.
            weight: [S] none is negative, and 0 is never taken.
            color: gives colours in [0, 1] for a choice among the S.
        """
        worst, slot = self._weight.index_select(1, row).min(dim=0)
        chosen = (weight > worst).nonzero()[:, 0]
        place = slot.index_select(0, chosen), row.index_select(0, chosen)
        self._weight[place] = weight.index_select(0, chosen)
        self._color[place] = (255 * color(chosen)).round().to(torch.uint8)

    def blend(self) -> Float[Tensor, "N 3"]:
        """Weighted means, less what is far from the colour in the middle, the one that is nearest to the others."""
        color = self._color.float() / 255
        # The root: one photograph, however good, shall not outvote all others.
        vote = self._weight.sqrt()
        to_others = torch.stack([(length(color - one) * vote).sum(dim=0) for one in color])  # [K, N]
        middle = torch.where(vote > 0, to_others, torch.inf).argmin(dim=0)
        center = color.gather(0, middle[None, :, None].expand(1, -1, 3))
        share = self._weight * torch.exp(-(length(color - center) / AGREEMENT).square())
        return (share[:, :, None] * color).sum(dim=0) / share.sum(dim=0).clamp(min=1e-30)[:, None]
