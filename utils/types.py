"""The records that flow through the program.

Every record is a dataclass of tensors. Conventions, everywhere:

* World coordinates are those of the scene: object around the origin, z up where known. `Views.to_dataset` takes them
  to the data set's. Cameras look along -z with x right and y up (OpenGL, Blender).
* `R` counts rays, `N` counts samples. Samples are packed: those of one ray are neighbours, near to far.
* Distances along a ray are Euclidean because directions have unit length.
* Colours are in [0, 1], as stored in the images (no gamma is applied).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.packing import fitting, moved

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
        mask: [R] share of the pixel that the object covers, or None. Methods that need it ask for it in training only.
        scene: [R] row of the sequence of photographs, or None where there is one only.
        time: [R] time at which the photograph was taken, in the data set's unit, or None.
        radius: [R] radius of the pixel's cone at distance 1, world units, or None.
    """

    origins: Float[Tensor, "R 3"]
    directions: Float[Tensor, "R 3"]
    backdrop: Float[Tensor, "R 3"]
    view: Int[Tensor, "R"]
    pixel: Int[Tensor, "R 2"]
    mask: Float[Tensor, "R"] | None = None
    scene: Int[Tensor, "R"] | None = None
    time: Float[Tensor, "R"] | None = None
    radius: Float[Tensor, "R"] | None = None

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> "Rays":
        return self.map(lambda tensor: tensor[rows])


@dataclass
class RayPoints(Record):
    """Points along rays, the same number P on every ray, near to far.

    Attributes:
        t: [R, P] distances from the ray origin; P may be 0 for renderers that find their points themselves.
        edges: [R, P + 1] where the intervals around the points begin and end, or None for points without extent.
    """

    t: Float[Tensor, "R P"]
    edges: Float[Tensor, "R P_plus_1"] | None = None

    @property
    def n_points(self) -> int:
        return self.t.shape[1]

    def positions(self, rays: Rays) -> Float[Tensor, "R P 3"]:
        """World positions."""
        return torch.addcmul(rays.origins[:, None], rays.directions[:, None], self.t[..., None])

    def __getitem__(self, rows: slice | Tensor) -> "RayPoints":
        return self.map(lambda tensor: tensor[rows])

    def samples(self) -> "Samples":
        """The intervals as packed samples; those of points without edges meet halfway between them."""
        edges = self.edges
        if edges is None:
            middle = 0.5 * (self.t[:, 1:] + self.t[:, :-1])
            edges = torch.cat([self.t[:, :1], middle, self.t[:, -1:]], dim=1)
        n_rays, n = self.t.shape
        row = torch.arange(n_rays + 1, device=self.t.device)
        return Samples(edges[:, :-1].flatten(), edges[:, 1:].flatten(), row[:-1].repeat_interleave(n), n * row)


@dataclass
class Context(Record):
    """What functions are told besides points; empty when a model knows one scene only.

    Attributes:
        code: [R, G] global code of the ray's scene and time, or None without an encoder.
        only_dense: whether answers matter where the density is positive alone: elsewhere a function may give any
            finite feature, and need not learn.
    """

    code: Float[Tensor, "R G"] | None = None
    only_dense: bool = False

    def __getitem__(self, rows: slice | Tensor) -> "Context":
        return self.map(lambda tensor: tensor[rows])


@dataclass
class Target(Record):
    """What the photographs say about rays.

    Attributes:
        color: [R, 3] observed colour, composited on the rays' backdrop where masks are applied.
        mask: [R] share of the pixel covered by the object in [0, 1], or None without masks.
        depth: [R] distance along the ray to the surface, 0 where nothing is hit or known, or None if unknown.
        normal: [R, 3] unit world normal of the surface, 0 where nothing is hit or known, or None if unknown.
        view: [R] which photograph, or None where all rays belong to one.
        cosine: [R] of the angle between ray and optical axis, or None without depth; times it, `depth` is measured
            along the axis.
        is_real: whether the colours come from images; placeholders of a camera path are never scored.
    """

    color: Float[Tensor, "R 3"]
    mask: Float[Tensor, "R"] | None = None
    depth: Float[Tensor, "R"] | None = None
    normal: Float[Tensor, "R 3"] | None = None
    view: Int[Tensor, "R"] | None = None
    cosine: Float[Tensor, "R"] | None = None
    is_real: bool = True


@dataclass
class RayBatch(Record):
    """Rays with their targets."""

    rays: Rays
    target: Target


@dataclass
class Samples(Record):
    """Intervals along rays, packed.

    While training on a GPU nobody but the GPU knows how many there are, and N is what they were given room for:
    padding follows the last sample. It has no width and gets no weight, and means do not count it. A ray that found
    no room for all of its samples has none, and means over rays leave it out.

    Attributes:
        t_start, t_end: [N] distances from the ray origin where the interval begins and ends; 0 in padding.
        ray: [N] row of the ray, ascending; 0 in padding.
        offsets: [R + 1] samples of ray `r` are `offsets[r]:offsets[r + 1]`; the last entry is N without padding.
        is_whole: [R] which rays found room, or None without padding, where all do.
    """

    t_start: Float[Tensor, "N"]
    t_end: Float[Tensor, "N"]
    ray: Int[Tensor, "N"]
    offsets: Int[Tensor, "R_plus_1"]
    is_whole: Bool[Tensor, "R"] | None = None

    def __len__(self) -> int:
        return self.t_start.shape[0]

    @property
    def is_padded(self) -> bool:
        return self.is_whole is not None

    @property
    def is_sample(self) -> Bool[Tensor, "N"]:
        """What is no padding."""
        return torch.arange(len(self), device=self.ray.device) < self.offsets[-1]

    @property
    def n_wanted(self) -> int | Int[Tensor, ""]:
        """Number of samples, had all rays found room; those without count as average ones."""
        if self.is_whole is None:
            return len(self)
        return self.offsets[-1] * self.n_rays // self.is_whole.sum().clamp_min(1)

    @property
    def n_rays(self) -> int:
        return self.offsets.shape[0] - 1

    @functools.cached_property
    def t(self) -> Float[Tensor, "N"]:
        """Midpoints."""
        return 0.5 * (self.t_start + self.t_end)

    @property
    def width(self) -> Float[Tensor, "N"]:
        return self.t_end - self.t_start

    def of_rays(self, values: Float[Tensor, "R C"]) -> Float[Tensor, "N C"]:
        """What the ray of each sample has; feature-major in memory, as kernels read it."""
        return values.T.contiguous().index_select(1, self.ray).T

    def points(self, rays: Rays) -> Float[Tensor, "N 3"]:
        """World positions of the midpoints."""
        return torch.addcmul(self.of_rays(rays.origins), self.of_rays(rays.directions), self.t[:, None])

    def keep(self, chosen: Bool[Tensor, "N"], capacity: int | None = None) -> "Samples":
        """Only the chosen samples, along the same rays.

        Args:
            capacity: length to pad them to; None for as many as there are, whose number a GPU is waited for.
        """
        chosen = chosen & self.is_sample if self.is_padded else chosen
        columns = self.t_start, self.t_end, self.ray
        if capacity is None:
            # Rows first: indexing with a mask would look for them once per column.
            row = chosen.nonzero()[:, 0]
            t_start, t_end, ray = (values.index_select(0, row) for values in columns)
            return Samples(t_start, t_end, ray, torch.searchsorted(row, self.offsets), self.is_whole)
        before = torch.cat([chosen.new_zeros(1, dtype=torch.int64), chosen.cumsum(0)])
        offsets, is_whole = fitting(before[self.offsets], capacity)
        place = torch.where(chosen & (before[:-1] < offsets[-1]), before[:-1], capacity)
        t_start, t_end, ray = (moved(values, place, capacity) for values in columns)
        is_whole = is_whole if self.is_whole is None else is_whole & self.is_whole
        return Samples(t_start, t_end, ray, offsets, is_whole)

    def mean(self, per_sample: Float[Tensor, "N"], beside: Float[Tensor, "P"] | None = None) -> Float[Tensor, ""]:
        """Mean over samples and over values `beside` them; zero, not NaN, where there is nothing."""
        if self.is_padded:
            per_sample = torch.where(self.is_sample, per_sample, 0.0)
        values = per_sample if beside is None else torch.cat([per_sample, beside])
        if not self.is_padded:
            return values.sum() / max(len(values), 1)
        n_padding = len(self) - self.offsets[-1]
        return values.sum() / (len(values) - n_padding).clamp_min(1)


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
class Neighbors(Record):
    """A signed distance field beside some of the samples, a small step away in their tangent planes.

    Attributes:
        sample: [K] rows of the samples.
        gradient: [K, 3] world gradient beside them.
        is_sample: [K] False where there was nothing but padding to draw from.
    """

    sample: Int[Tensor, "K"]
    gradient: Float[Tensor, "K 3"]
    is_sample: Bool[Tensor, "K"]


@dataclass
class Rendered(Record):
    """What a renderer saw along rays; the fields after `background` exist while training only.

    Attributes:
        color: [R, C] final colour, background included; C is 3, but for models that render features.
        opacity: [R] share of the light stopped by the foreground, in [0, 1].
        depth: [R] mean distance of what stopped the light (0 where nothing did).
        normal: [R, 3] unit world normals (0 where nothing was hit), or None for fields without any, and in training
            where no loss asks for them.
        background: what the background model saw by itself, or None without one.
        is_dense: whether every ray was asked along all of its length. Where empty space is skipped instead, losses
            compare colours on those rays alone that met anything.
        coarse: what the pass before this one saw, or None for the first.
        samples, weights: the intervals and their [N] shares of the ray's colour.
        sdf, gradient, laplacian: [N], [N, 3], [N] of a signed distance field at the midpoints.
        tap_share: present distance of progressive finite differences, as a share of the first one.
        probes: the field at free points, if the model asks for any.
        neighbors: the field beside samples, if the model asks for any.
        sharpness: inverse width of the surface (NeuS' s), inverse world units.
        at_points: [P] distance from the surface of points that are known to lie on it, world units, negative inside.
        code_norm: mean square of the learnt codes of scenes.
        density_grid: [F, X, Y, Z] values of a voxel grid of densities, not negative.
        n_samples: of all rays, had all of them found room (`Samples.n_wanted`).
    """

    color: Float[Tensor, "R C"]
    opacity: Float[Tensor, "R"]
    depth: Float[Tensor, "R"]
    normal: Float[Tensor, "R 3"] | None = None
    background: "Rendered | None" = None
    is_dense: bool = False
    coarse: "Rendered | None" = None
    samples: Samples | None = None
    weights: Float[Tensor, "N"] | None = None
    sdf: Float[Tensor, "N"] | None = None
    gradient: Float[Tensor, "N 3"] | None = None
    laplacian: Float[Tensor, "N"] | None = None
    tap_share: float | None = None
    probes: Probes | None = None
    neighbors: Neighbors | None = None
    sharpness: Float[Tensor, ""] | None = None
    at_points: Float[Tensor, "P"] | None = None
    code_norm: Float[Tensor, ""] | None = None
    density_grid: Float[Tensor, "F X Y Z"] | None = None
    n_samples: int | Int[Tensor, ""] = 0

    @property
    def is_hit(self) -> Bool[Tensor, "R"]:
        """Whole rays that losses compare: those that met anything, foreground or background; all if `is_dense`."""
        if self.is_dense:
            return torch.ones_like(self.opacity, dtype=torch.bool)
        hit = self.opacity > 0
        hit = hit if self.background is None else hit | (self.background.opacity > 0)
        return hit if self.is_whole is None else hit & self.is_whole

    @property
    def is_whole(self) -> Bool[Tensor, "R"] | None:
        """Rays that found room for all of their samples, foreground and background; None: all of them."""
        own = None if self.samples is None else self.samples.is_whole
        behind = None if self.background is None else self.background.is_whole
        if own is None or behind is None:
            return behind if own is None else own
        return own & behind

    @property
    def ray_weights(self) -> Float[Tensor, "R"] | None:
        """Weights of mean 1 by which a mean over rays leaves out those that are not whole; None: all are."""
        if self.is_whole is None:
            return None
        whole = self.is_whole.to(self.opacity.dtype)
        return whole / whole.mean().clamp_min(1 / len(whole))


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
        normals: [P, 3] unit normals at the points, of either side, or None if unknown.
        mesh: its triangles, or None where it is known otherwise.
        spacing: of the points, where distances are those to the nearest one and so too large by up to that; else 0.
    """

    points: Float[Tensor, "P 3"]
    distance: Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]
    diameter: float
    normals: Float[Tensor, "P 3"] | None = None
    mesh: Mesh | None = None
    spacing: float = 0.0
