"""A trained model as files: a mesh with colours at its vertices, and a lighter one with a texture.

Files hold the coordinates of the data set's own files, or those of the scene, z up.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets.views import Views
from models.base import Model
from models.cleaning import keep_components, select, smooth
from models.decimation import decimate
from models.mesh import EmptySurface, extract_surface, report
from models.texture_atlas import bake, unwrap
from systems.mesh_files import export_mesh, moved
from systems.photograph_color import PhotographColor
from systems.unseen import seen_faces
from utils.progress import progress
from utils.registry import ConfigError
from utils.similarity import IDENTITY
from utils.types import Mesh


@dataclass
class ExportConfig:
    """Options of the files that a model is exported to."""

    chunk_size: int = 524288
    """Points whose colour is computed at once."""
    export_vertex_color: bool = True
    """Whether the vertices of the full mesh carry colours."""
    texture_faces: int = 200000
    """Triangles that the textured mesh is decimated to."""
    texture_size: int = 2048
    """Side of the square texture, texels; 0 writes no textured mesh."""
    texture_source: Literal["field", "photographs"] = "field"
    """Where its colours come from: the model, as seen along the normal, or the photographs that were trained on; the
    model then fills in what none of them shows. --export reads the data set for photographs only."""
    min_component_share: float = 0.002
    """Share of the whole area below which a connected part is dropped. Noise and floaters are smaller; what is a
    twentieth the size of the object has 0.0025."""
    keep_components: int = 0
    """Most connected parts that are kept, the largest first; 0 sets no limit."""
    fill_cavities: bool = True
    """Whether hollows that something solid encloses are filled: no camera has seen them, the model made them up."""
    drop_unseen: bool = False
    """Whether faces that no training camera sees are dropped, such as those inside. The mesh is open there."""
    smoothing: int = 0
    """Rounds of Taubin smoothing; 10 take off the noise of a radiance field, and detail of the size of a few cells."""
    max_faces: int = 0
    """Triangles that the full mesh is decimated to; 0 keeps all."""
    coordinates: Literal["dataset", "scene"] = "dataset"
    """Of the meshes and of cameras.json: those of the data set's files, or those the model sees, z up and the object
    around the origin."""

    def __post_init__(self) -> None:
        least = {"chunk_size": 1, "texture_faces": 4} | dict.fromkeys(
            ("texture_size", "min_component_share", "keep_components", "smoothing", "max_faces"), 0
        )
        for key, number in least.items():
            if getattr(self, key) < number:
                raise ConfigError(f"export.{key} is {getattr(self, key)}; expected at least {number}")
        if self.min_component_share >= 1:
            raise ConfigError(f"export.min_component_share is {self.min_component_share:g}; expected less than 1")


@dataclass
class Exported:
    """What became of a model.

    Attributes:
        full, textured: the mesh and its light twin, if one was asked for, in scene coordinates.
        paths: of the files.
        mesh, texture: reports for metrics.json; lengths in `mesh` are in the coordinates of the files.
    """

    full: Mesh
    textured: Mesh | None
    paths: list[Path]
    mesh: dict[str, Any]
    texture: dict[str, Any] | None


def export_surface(
    model: Model,
    config: ExportConfig,
    folder: Path,
    stem: str,
    to_dataset: Float64[Tensor, "4 4"] = IDENTITY,
    views: Views | None = None,
) -> Exported | None:
    """Meshes a model and writes `<stem>-<method><resolution>.obj` and its textured twins, telling how far it is.

    A field without a surface is said, but no error, because a run that has trained must be able to finish.

    Args:
        model: in evaluation mode, on any device.
        config: the `export` section.
        folder: is created where it is missing.
        stem: start of the file names.
        to_dataset: [4, 4] similarity, scene to dataset.
        views: of the training; their cameras tell what `drop_unseen` drops, their photographs may become the texture.

    Returns:
        None where there is no surface.
    """
    options = model.isosurface
    if options is None:
        print("no mesh: the field has no surface, or its isosurface is null")
        return None
    try:
        full, n_queries = _extract(model)
        full, losses = _clean(full, config, views)
    except EmptySurface as error:
        print(f"no mesh: {error}")
        return None

    color = _SurfaceColor(model)
    if config.export_vertex_color:
        full = replace(full, colors=color.at_vertices(full, config.chunk_size))
    textured, texture = _texture(full, color, config, views) if config.texture_size else (None, None)
    similarity = to_dataset if config.coordinates == "dataset" else IDENTITY
    summary = report(full) | losses | {"field_queries": n_queries}
    summary |= {"size": _size(moved(full, similarity)), "coordinates": config.coordinates}
    print("mesh: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in summary.items()))
    stem = f"{stem}-{options.method}{options.resolution}"
    paths = export_mesh(full, textured, folder, stem, similarity)
    return Exported(full, textured, paths, summary, texture)


class _SurfaceColor:
    """A model's surface colour as a function of CPU tensors, whatever device the model is on."""

    def __init__(self, model: Model):
        self.model, self.device = model, _device(model)

    def __call__(self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        color = self.model.surface_color(points.to(self.device), normals.to(self.device))
        return color.detach().float().clamp(0, 1).cpu()

    @torch.no_grad()
    def at_vertices(self, mesh: Mesh, chunk: int) -> Float[Tensor, "V 3"]:
        assert mesh.normals is not None
        colors = torch.empty_like(mesh.vertices)
        with progress("vertex colours", len(colors), "vertices") as tell:
            for start in range(0, len(colors), chunk):
                part = slice(start, start + chunk)
                colors[part] = self(mesh.vertices[part], mesh.normals[part])
                tell(min(1.0, (start + chunk) / len(colors)))
        return colors


def _extract(model: Model) -> tuple[Mesh, int]:
    """The surface of a model, and at how many points its field was asked."""
    options, device = model.isosurface, _device(model)
    assert options is not None
    n_queries = 0

    def level(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        nonlocal n_queries
        n_queries += len(points)
        return model.level(points.to(device))

    with progress(f"surface at {options.resolution}³", options.resolution**3, "nodes") as tell:
        mesh = extract_surface(
            level,
            model.radius,
            options.resolution,
            options.chunk,
            options.method,
            model.is_distance,
            lambda points, reach: model.may_hold_surface(points.to(device), reach).cpu(),
            tell,
        )
    return mesh, n_queries


def _clean(mesh: Mesh, config: ExportConfig, views: Views | None) -> tuple[Mesh, dict[str, int]]:
    """The mesh that is wanted, and what it has lost."""
    losses = {}
    if config.drop_unseen:
        assert views is not None
        with progress("faces in sight", len(views), "views") as tell:
            is_seen = seen_faces(mesh, views.cameras, tell)
        losses["faces_unseen"] = int((~is_seen).count_nonzero())
        if not is_seen.any():
            raise EmptySurface(f"none of {len(views)} training cameras sees it; set export.drop_unseen to false")
        mesh = select(mesh, is_seen)
    mesh, losses["components_dropped"] = keep_components(
        mesh, config.keep_components, config.min_component_share, config.fill_cavities
    )
    mesh = smooth(mesh, config.smoothing)
    return _decimated(mesh, config.max_faces or len(mesh.faces)), losses


def _decimated(mesh: Mesh, n_faces: int) -> Mesh:
    if len(mesh.faces) <= n_faces:
        return mesh
    with progress(f"decimation to {n_faces:,} faces", len(mesh.faces), "faces") as tell:
        return decimate(mesh, n_faces, tell)


def _texture(
    mesh: Mesh, color: _SurfaceColor, config: ExportConfig, views: Views | None
) -> tuple[Mesh, dict[str, Any]]:
    """The light twin of a mesh with its texture, and what there is to say of that."""
    size, source = config.texture_size, color
    light = _decimated(replace(mesh, colors=None), config.texture_faces)
    with progress("texture atlas", len(light.faces), "faces") as tell:
        light = unwrap(light, size, tell)
    if config.texture_source == "photographs":
        assert views is not None
        with progress("what photographs show", len(views), "views") as tell:
            source = PhotographColor(light, views, color, tell)
    with progress(f"texture of {size}²", size**2, "texels") as tell:
        light = bake(light, source, size, config.chunk_size, tell)
    about = {"source": config.texture_source, "size": size, "faces": len(light.faces)}
    if isinstance(source, PhotographColor):
        about["share_in_photographs"] = source.n_seen / max(source.n_points, 1)
        print(f"texture: {about['share_in_photographs']:.1%} from photographs, the rest from the model")
    return light, about


def _device(model: Model) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _size(mesh: Mesh) -> list[float]:
    """Extents along the axes."""
    return [float(f"{side:.4g}") for side in (mesh.vertices.amax(0) - mesh.vertices.amin(0)).tolist()]
