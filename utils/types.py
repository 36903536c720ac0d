"""The records that flow through the program.

Every record is a dataclass of tensors. Conventions, everywhere:

* World coordinates are those of the scene: object around the origin, z up where known. `Views.to_dataset` takes them
  to the data set's. Cameras look along -z with x right and y up (OpenGL, Blender).
* `R` counts rays, `N` counts samples. Samples are packed: those of one ray are neighbours, near to far.
* Distances along a ray are Euclidean because directions have unit length.
* Colours are in [0, 1], as stored in the images (no gamma is applied).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Self = TypeVar("Self", bound="Record")


@dataclass
class Record:
    """A bundle of tensors that moves and slices as one."""

    def map(self: Self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same record with `change` applied to every tensor, also to those of nested records."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            return value.map(change) if isinstance(value, Record) else value

        return replace(self, **{f.name: apply(getattr(self, f.name)) for f in fields(self)})

    def to(self: Self, device: torch.device | str) -> Self:
        return self.map(lambda tensor: tensor.to(device))

    @classmethod
    def cat(cls: type[Self], parts: "list[Self]") -> Self:
        """Records of neighbouring rays as one; numbers are added up."""

        def join(values: list[Any]) -> Any:
            first = values[0]
            if isinstance(first, Tensor):
                return torch.cat(values)
            if isinstance(first, Record):
                return type(first).cat(values)
            return first if first is None or isinstance(first, bool) else sum(values)

        return cls(**{f.name: join([getattr(part, f.name) for part in parts]) for f in fields(cls)})


@dataclass
class Rays(Record):
    """Half-lines in world space, one per pixel.

    Attributes:
        origins: [R, 3] camera centres.
        directions: [R, 3] unit vectors.
        backdrop: [R, 3] colour a ray sees where it hits nothing.
        view: [R] index of the view a ray belongs to.
        pixel: [R, 2] integer column and row of its pixel.
    """

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    backdrop: Float[Tensor, "R 3"]
    view: Int[Tensor, "R"]
    pixel: Int[Tensor, "R 2"]

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Rays":
        return self.map(lambda tensor: tensor[rows])


@dataclass
class Target(Record):
    """What the photographs say about rays.

    Attributes:
        color: [R, 3] observed colour, composited on the rays' backdrop where masks are applied.
        mask: [R] share of the pixel covered by the object in [0, 1], or None without masks.
        depth: [R] distance along the ray to the surface, 0 where nothing is hit, or None if unknown.
        normal: [R, 3] unit world normal of the surface, 0 where nothing is hit, or None if unknown.
        is_real: whether the colours come from images; placeholders of a camera path are never scored.
    """

    color: Float[Tensor, "R 3"]
    mask: Float[Tensor, "R"] | None = None
    depth: Float[Tensor, "R"] | None = None
    normal: Float[Tensor, "R 3"] | None = None
    is_real: bool = True


@dataclass
class RayBatch(Record):
    """Rays with their targets."""

    rays: Rays
    target: Target


@dataclass
class Samples(Record):
    """Intervals along rays, packed.

    Attributes:
        t_start, t_end: [N] distances from the ray origin where the interval begins and ends.
        ray: [N] row of the ray, ascending.
        offsets: [R + 1] samples of ray `r` are `offsets[r]:offsets[r + 1]`; the last entry is N.
    """

    t_start: Float[Tensor, "N"]
    t_end: Float[Tensor, "N"]
    ray: Int[Tensor, "N"]
    offsets: Int[Tensor, "R_plus_1"]

    def __len__(self) -> int:
        return self.t_start.shape[0]

    @property
    def n_rays(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def t(self) -> Float[Tensor, "N"]:
        """Midpoints."""
        return 0.5 * (self.t_start + self.t_end)

    @property
    def width(self) -> Float[Tensor, "N"]:
        return self.t_end - self.t_start

    def points(self, rays: Rays) -> Float[Tensor, "N 3"]:
        """World positions of the midpoints."""
        return rays.origins[self.ray] + self.t[:, None] * rays.directions[self.ray]

    def keep(self, chosen: Bool[Tensor, "N"]) -> "Samples":
        """Only the chosen samples, along the same rays."""
        before = torch.cat([chosen.new_zeros(1, dtype=torch.int64), chosen.cumsum(0)])
        return Samples(self.t_start[chosen], self.t_end[chosen], self.ray[chosen], before[self.offsets])


@dataclass
class Probes(Record):
    """A signed distance field asked at free points, away from any ray's samples.

    Attributes:
        sdf: [P] signed distance, world units, negative inside.
        gradient: [P, 3] its world gradient.
        is_empty: [P] whether the occupancy grid holds the point's cell for empty space.
    """

    sdf: Float[Tensor, "P"]
    gradient: Float[Tensor, "P 3"]
    is_empty: Bool[Tensor, "P"]


@dataclass
class Rendered(Record):
    """What a renderer saw along rays; the fields after `normal` exist while training only.

    Attributes:
        color: [R, 3] final colour, background included.
        opacity: [R] share of the light stopped by the foreground, in [0, 1].
        depth: [R] mean distance of what stopped the light (0 where nothing did).
        normal: [R, 3] unit world normals (0 where nothing was hit), or None for fields without any.
        background: what the background model saw by itself, or None without one.
        samples, weights: the intervals and their [N] shares of the ray's colour.
        sdf, gradient, laplacian: [N], [N, 3], [N] of a signed distance field at the midpoints.
        probes: the field at free points, if the model asks for any.
        sharpness: inverse width of the surface (NeuS' s), inverse world units.
    """

    color: Float[Tensor, "R 3"]
    opacity: Float[Tensor, "R"]
    depth: Float[Tensor, "R"]
    normal: Float[Tensor, "R 3"] | None = None
    background: "Rendered | None" = None
    samples: Samples | None = None
    weights: Float[Tensor, "N"] | None = None
    sdf: Float[Tensor, "N"] | None = None
    gradient: Float[Tensor, "N 3"] | None = None
    laplacian: Float[Tensor, "N"] | None = None
    probes: Probes | None = None
    sharpness: Float[Tensor, ""] | None = None
    n_samples: int = 0

    @property
    def is_hit(self) -> Bool[Tensor, "R"]:
        """Rays that met anything, foreground or background."""
        hit = self.opacity > 0
        return hit if self.background is None else hit | (self.background.opacity > 0)


@dataclass
class Mesh(Record):
    """A triangle mesh in world coordinates, faces wound counter-clockwise seen from outside.

    Attributes:
        vertices: [V, 3] float32.
        faces: [F, 3] int64 rows of `vertices`.
        normals: [V, 3] unit, outward, or None.
        colors: [V, 3] in [0, 1], or None.
        uv: [V, 2] texture coordinates, origin at the lower left, or None.
        texture: [H, W, 3] uint8 image that `uv` points into (row 0 at the top), or None.
    """

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    normals: Float[Tensor, "V 3"] | None = None
    colors: Float[Tensor, "V 3"] | None = None
    uv: Float[Tensor, "V 2"] | None = None
    texture: Tensor | None = None


@dataclass
class Surface:
    """A known true surface, to measure reconstructions against.

    Attributes:
        points: [P, 3] world points spread evenly over it.
        distance: maps world points [N, 3] to their [N] distance from it, world units, never negative.
        diameter: of its bounding sphere, world units; errors are reported relative to it.
    """

    points: Float[Tensor, "P 3"]
    distance: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]
    diameter: float
