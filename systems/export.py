"""A trained model as files: a mesh with colours at its vertices, and a lighter one with a texture.

Files hold the coordinates of the data set's own files, or those of the scene, z up. glTF is y-up by its specification,
so the node of a GLB stands its vertices up; it also carries them to the data set, in double precision, because surveys
have coordinates in the millions.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Float64
from PIL import Image
from torch import Tensor
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from datasets.views import Views
from models.base import Model
from models.cleaning import keep_components, select, smooth
from models.mesh import EmptySurface, extract_surface, report
from models.texture_atlas import bake, decimate, unwrap
from systems.panels import save_image
from systems.unseen import seen_faces
from utils.progress import progress
from utils.registry import ConfigError
from utils.similarity import IDENTITY, Z_TO_Y_UP, rotation_of
from utils.types import Mesh

LINES = 2**16
"""Lines of text that are formatted at once."""


@dataclass
class ExportConfig:
    """Options of the files that a model is exported to."""

    chunk_size: int = 2097152
    """Points whose colour is computed at once."""
    export_vertex_color: bool = True
    """Whether the vertices of the full mesh carry colours."""
    texture_faces: int = 50000
    """Triangles that the textured mesh is decimated to."""
    texture_size: int = 2048
    """Side of the square texture, texels; 0 writes no textured mesh."""
    min_component_share: float = 0.002
    """Share of the whole area below which a connected part is dropped. Noise and floaters are smaller; what is a
    twentieth the size of the object has 0.0025."""
    keep_components: int = 0
    """Most connected parts that are kept, the largest first; 0 sets no limit."""
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


def export_surface(
    model: Model,
    config: ExportConfig,
    folder: Path,
    stem: str,
    to_dataset: Float64[Tensor, "4 4"] = IDENTITY,
    views: Views | None = None,
) -> tuple[Mesh | None, list[Path], dict[str, Any] | None]:
    """Meshes a model and writes `<stem>-<method><resolution>.obj` and its textured twins, telling how far it is.

    A field without a surface is said, but no error, because a run that has trained must be able to finish.

    Args:
        model: in evaluation mode, on any device.
        config: the `export` section.
        folder: is created where it is missing.
        stem: start of the file names.
        to_dataset: [4, 4] similarity, scene to dataset.
        views: of the training; their cameras tell what `drop_unseen` drops.

    Returns:
        The full mesh in scene coordinates, the files written, and the mesh's report, whose `size` is in the coordinates
        of the files; None, none and None where there is no surface.
    """
    options = model.isosurface
    if options is None:
        print("no mesh: the field has no surface, or its isosurface is null")
        return None, [], None
    try:
        full, n_queries = _extract(model)
        full, losses = _clean(full, config, views)
    except EmptySurface as error:
        print(f"no mesh: {error}")
        return None, [], None

    color = _SurfaceColor(model)
    if config.export_vertex_color:
        full = replace(full, colors=color.at_vertices(full, config.chunk_size))
    textured = _texture(full, color, config) if config.texture_size else None
    similarity = to_dataset if config.coordinates == "dataset" else IDENTITY
    summary = report(full) | losses | {"field_queries": n_queries}
    summary |= {"size": _size(moved(full, similarity)), "coordinates": config.coordinates}
    print("mesh: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in summary.items()))
    stem = f"{stem}-{options.method}{options.resolution}"
    return full, export_mesh(full, textured, folder, stem, similarity), summary


def export_mesh(
    mesh: Mesh, textured: Mesh | None, folder: Path, stem: str, similarity: Float64[Tensor, "4 4"] = IDENTITY
) -> list[Path]:
    """Writes `<stem>.obj` and, of the textured mesh, `<stem>-textured` as .obj with .mtl and .png, and as .glb.

    Args:
        similarity: [4, 4] from the coordinates of the meshes to those of the files.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{stem}.obj"]
    write_obj(written[0], moved(mesh, similarity))
    if textured is None:
        return written
    paths = [folder / f"{stem}-textured.{kind}" for kind in ("obj", "mtl", "png", "glb")]
    obj, mtl, png, glb = paths
    write_obj(obj, moved(textured, similarity), mtl.name)
    mtl.write_text(f"newmtl surface\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {png.name}\n")
    save_image(png, _pixels(textured))
    write_glb(glb, textured, similarity)
    return written + paths


def moved(mesh: Mesh, similarity: Float64[Tensor, "4 4"]) -> Mesh:
    """The mesh after a similarity, in double precision."""
    vertices = mesh.vertices.double() @ similarity[:3, :3].T + similarity[:3, 3]
    normals = None if mesh.normals is None else mesh.normals.double() @ rotation_of(similarity).T
    return replace(mesh, vertices=vertices, normals=normals)


def write_obj(path: Path, mesh: Mesh, material_file: str | None = None) -> None:
    """Writes Wavefront OBJ: colours follow the coordinates of a vertex; uv and normals are shared by row.

    Args:
        material_file: name of the .mtl beside it that holds the material `surface`.
    """
    line, columns = "v" + f" %.{_n_digits(mesh)}g" * 3, mesh.vertices
    if mesh.colors is not None:
        line, columns = line + " %.7g" * 3, torch.cat([mesh.vertices, mesh.colors], dim=-1)
    reference, row = "f %d %d %d", mesh.faces + 1
    with path.open("w", newline="\n") as file:
        if material_file is not None:
            file.write(f"mtllib {material_file}\nusemtl surface\n")
        _write_lines(file, line, columns)
        # Normals are worth their space on the light mesh only; the full one is as smooth as its grid.
        if mesh.uv is not None and mesh.normals is not None:
            reference, row = "f %d/%d/%d %d/%d/%d %d/%d/%d", row.repeat_interleave(3, dim=1)
            _write_lines(file, "vt %.7g %.7g", mesh.uv)
            _write_lines(file, "vn %.5f %.5f %.5f", mesh.normals)
        _write_lines(file, reference, row)


def write_glb(path: Path, mesh: Mesh, similarity: Float64[Tensor, "4 4"] = IDENTITY) -> None:
    """Writes the textured mesh as binary glTF 2.0, unpolished and not metallic, moved and stood up to y by its node."""
    material = PBRMaterial(baseColorTexture=Image.fromarray(_pixels(mesh)), metallicFactor=0.0, roughnessFactor=1.0)
    assert mesh.uv is not None and mesh.normals is not None
    body = trimesh.Trimesh(
        mesh.vertices.numpy(),
        mesh.faces.numpy(),
        vertex_normals=mesh.normals.numpy(),
        visual=TextureVisuals(uv=mesh.uv.numpy(), material=material),
        process=False,
    )
    scene = trimesh.Scene()
    scene.add_geometry(body, transform=(Z_TO_Y_UP @ similarity).numpy())
    scene.export(path)


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
    mesh, losses["components_dropped"] = keep_components(mesh, config.keep_components, config.min_component_share)
    mesh = smooth(mesh, config.smoothing)
    return decimate(mesh, config.max_faces or len(mesh.faces)), losses


def _texture(mesh: Mesh, color: _SurfaceColor, config: ExportConfig) -> Mesh:
    print("texture atlas ...", flush=True)
    light = unwrap(decimate(replace(mesh, colors=None), config.texture_faces), config.texture_size)
    with progress(f"texture of {config.texture_size}²", config.texture_size**2, "texels") as tell:
        return bake(light, color, config.texture_size, config.chunk_size, tell)


def _device(model: Model) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _pixels(mesh: Mesh) -> np.ndarray:
    if mesh.texture is None:
        raise ValueError("a mesh without a texture cannot be written as a textured one; bake it first")
    return mesh.texture.numpy()


def _size(mesh: Mesh) -> list[float]:
    """Extents along the axes."""
    return [float(f"{side:.4g}") for side in (mesh.vertices.amax(0) - mesh.vertices.amin(0)).tolist()]


def _n_digits(mesh: Mesh) -> int:
    """Digits that tell vertices apart as float32 does around the origin, however far away they are."""
    extent = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
    distance = float(mesh.vertices.abs().max())
    return 7 if distance <= extent else 7 + math.ceil(math.log10(distance / max(extent, 1e-9 * distance)))


def _write_lines(file: TextIO, line: str, rows: Tensor) -> None:
    for part in rows.split(LINES):
        file.write((line + "\n") * len(part) % tuple(part.flatten().tolist()))
