"""A trained model as files: a mesh with colours at its vertices, and a lighter one with a texture.

All files hold world coordinates, with z up as in the data sets. glTF is y-up by its specification, so the GLB holds
the same vertices under a node that stands them up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from models.base import Model
from models.mesh import EmptySurface, extract_surface, keep_components, report
from models.texture_atlas import bake, decimate, unwrap
from systems.panels import save_image
from utils.registry import ConfigError
from utils.types import Mesh

Z_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""Homogeneous rotation that takes world z to glTF's y."""
LINES = 2**16
"""Lines of text that are formatted at once."""
PAUSE = 10.0
"""Seconds between two words on how far a stage is."""


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
    keep_components: int = 1
    """Connected parts that are kept, the largest first; 0 keeps all."""

    def __post_init__(self) -> None:
        for key, least in (("chunk_size", 1), ("texture_faces", 4), ("texture_size", 0), ("keep_components", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"export.{key} is {getattr(self, key)}; expected at least {least}")


def export_surface(
    model: Model, config: ExportConfig, folder: Path, stem: str
) -> tuple[Mesh | None, list[Path], dict[str, Any] | None]:
    """Meshes a model and writes `<stem>-<method><resolution>.obj` and its textured twins, telling how far it is.

    A field without a surface is said, but no error, because a run that has trained must be able to finish.

    Args:
        model: in evaluation mode, on any device.
        config: the `export` section.
        folder: is created where it is missing.
        stem: start of the file names.

    Returns:
        The full mesh, the files written, and the mesh's report; None, none and None where there is no surface.
    """
    options = model.isosurface
    if options is None:
        print("no mesh: model.geometry.isosurface is null")
        return None, [], None
    try:
        full, n_dropped = keep_components(_extract(model), config.keep_components)
    except EmptySurface as error:
        print(f"no mesh: {error}")
        return None, [], None

    color = _SurfaceColor(model)
    if config.export_vertex_color:
        full = replace(full, colors=color.at_vertices(full, config.chunk_size))
    textured = _texture(full, color, config) if config.texture_size else None
    summary = report(full) | {"components_dropped": n_dropped}
    print("mesh: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in summary.items()))
    return full, export_mesh(full, textured, folder, f"{stem}-{options.method}{options.resolution}"), summary


def export_mesh(mesh: Mesh, textured: Mesh | None, folder: Path, stem: str) -> list[Path]:
    """Writes `<stem>.obj` and, of the textured mesh, `<stem>-textured` as .obj with .mtl and .png, and as .glb.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{stem}.obj"]
    write_obj(written[0], mesh)
    if textured is None:
        return written
    paths = [folder / f"{stem}-textured.{kind}" for kind in ("obj", "mtl", "png", "glb")]
    obj, mtl, png, glb = paths
    write_obj(obj, textured, mtl.name)
    mtl.write_text(f"newmtl surface\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {png.name}\n")
    save_image(png, _pixels(textured))
    write_glb(glb, textured)
    return written + paths


def write_obj(path: Path, mesh: Mesh, material_file: str | None = None) -> None:
    """Writes Wavefront OBJ: colours follow the coordinates of a vertex; uv and normals are shared by row.

    Args:
        material_file: name of the .mtl beside it that holds the material `surface`.
    """
    columns = mesh.vertices if mesh.colors is None else torch.cat([mesh.vertices, mesh.colors], dim=-1)
    reference, row = "f %d %d %d", mesh.faces + 1
    with path.open("w", newline="\n") as file:
        if material_file is not None:
            file.write(f"mtllib {material_file}\nusemtl surface\n")
        _write_lines(file, "v" + " %.7g" * columns.shape[1], columns)
        # Normals are worth their space on the light mesh only; the full one is as smooth as its grid.
        if mesh.uv is not None and mesh.normals is not None:
            reference, row = "f %d/%d/%d %d/%d/%d %d/%d/%d", row.repeat_interleave(3, dim=1)
            _write_lines(file, "vt %.7g %.7g", mesh.uv)
            _write_lines(file, "vn %.5f %.5f %.5f", mesh.normals)
        _write_lines(file, reference, row)


def write_glb(path: Path, mesh: Mesh) -> None:
    """Writes the textured mesh as binary glTF 2.0, unpolished and not metallic, stood up to y."""
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
    scene.add_geometry(body, transform=Z_TO_Y_UP)
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
        tell = _progress("vertex colours")
        colors = torch.empty_like(mesh.vertices)
        for start in range(0, len(colors), chunk):
            part = slice(start, start + chunk)
            colors[part] = self(mesh.vertices[part], mesh.normals[part])
            tell(min(1.0, (start + chunk) / len(colors)))
        return colors


def _extract(model: Model) -> Mesh:
    options, device = model.isosurface, _device(model)
    assert options is not None
    return extract_surface(
        lambda points: model.level(points.to(device)),
        model.radius,
        options.resolution,
        options.chunk,
        options.method,
        model.is_distance,
        _progress(f"surface at {options.resolution}³"),
    )


def _texture(mesh: Mesh, color: _SurfaceColor, config: ExportConfig) -> Mesh:
    _progress("texture atlas")
    light = unwrap(decimate(replace(mesh, colors=None), config.texture_faces), config.texture_size)
    tell = _progress(f"texture of {config.texture_size}²")
    return bake(light, color, config.texture_size, config.chunk_size, tell)


def _device(model: Model) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _progress(what: str) -> Callable[[float], None]:
    """Says what begins, and returns what to tell the finished share; lines, because a bar may be on the screen."""
    print(f"{what} ...", flush=True)
    said = time.monotonic()

    def tell(share: float) -> None:
        nonlocal said
        if time.monotonic() - said > PAUSE:
            said = time.monotonic()
            print(f"{what}: {share:.0%}", flush=True)

    return tell


def _pixels(mesh: Mesh) -> np.ndarray:
    if mesh.texture is None:
        raise ValueError("a mesh without a texture cannot be written as a textured one; bake it first")
    return mesh.texture.numpy()


def _write_lines(file: TextIO, line: str, rows: Tensor) -> None:
    for part in rows.split(LINES):
        file.write((line + "\n") * len(part) % tuple(part.flatten().tolist()))
