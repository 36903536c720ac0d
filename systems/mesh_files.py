"""Meshes as files that other programs read: OBJ, PLY and GLB.

glTF is y-up by its specification, so the node of a GLB stands its vertices up; it also carries them to the data set, in
double precision, because surveys have coordinates in the millions. Textures hold the light of the photographs, so
materials add none of their own.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import trimesh
from jaxtyping import Float64
from PIL import Image
from torch import Tensor
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from systems.panels import save_image
from utils.similarity import IDENTITY, Z_TO_Y_UP, rotation_of
from utils.types import Mesh

LINES = 2**16
"""Lines of text that are formatted at once."""
UNLIT = "KHR_materials_unlit"


def export_mesh(
    mesh: Mesh, textured: Mesh | None, folder: Path, stem: str, similarity: Float64[Tensor, "4 4"] = IDENTITY
) -> list[Path]:
    """Writes `<stem>` as .obj and .ply; of the textured mesh `<stem>-textured` as .obj with .mtl and .png, and as .glb.

    Args:
        similarity: [4, 4] from the coordinates of the meshes to those of the files.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{stem}.obj", folder / f"{stem}.ply"]
    full = moved(mesh, similarity)
    write_obj(written[0], full)
    write_ply(written[1], full)
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


def write_ply(path: Path, mesh: Mesh) -> None:
    """Writes binary PLY: vertices, as doubles where floats would not tell them apart, their colours as bytes, faces."""
    kind, word = ("<f8", "double") if _n_digits(mesh) > 7 else ("<f4", "float")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.vertices)}"]
    header += [f"property {word} {axis}" for axis in "xyz"]
    columns: list[Any] = [("place", kind, 3)]
    if mesh.colors is not None:
        header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
        columns.append(("color", "u1", 3))
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header", ""]

    vertices = np.empty(len(mesh.vertices), columns)
    vertices["place"] = mesh.vertices.numpy()
    if mesh.colors is not None:
        vertices["color"] = (mesh.colors.clamp(0, 1) * 255).round().numpy()
    faces = np.empty(len(mesh.faces), [("n", "u1"), ("corner", "<i4", 3)])
    faces["n"], faces["corner"] = 3, mesh.faces.numpy()
    with path.open("wb") as file:
        file.write("\n".join(header).encode())
        vertices.tofile(file)
        faces.tofile(file)


def write_glb(path: Path, mesh: Mesh, similarity: Float64[Tensor, "4 4"] = IDENTITY) -> None:
    """Writes the textured mesh as binary glTF 2.0, moved and stood up to y by its node.

    Readers that know `KHR_materials_unlit` show the texture as it is; to others the material is not metallic and rough.
    """
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
    scene.export(path, tree_postprocessor=_unlight)


def _unlight(tree: dict[str, Any]) -> None:
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), UNLIT]
    for material in tree["materials"]:
        material["extensions"] = {UNLIT: {}}


def _pixels(mesh: Mesh) -> np.ndarray:
    if mesh.texture is None:
        raise ValueError("a mesh without a texture cannot be written as a textured one; bake it first")
    return mesh.texture.numpy()


def _n_digits(mesh: Mesh) -> int:
    """Digits that tell vertices apart as float32 does around the origin, however far away they are."""
    extent = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
    distance = float(mesh.vertices.abs().max())
    return 7 if distance <= extent else 7 + math.ceil(math.log10(distance / max(extent, 1e-9 * distance)))


def _write_lines(file: TextIO, line: str, rows: Tensor) -> None:
    for part in rows.split(LINES):
        file.write((line + "\n") * len(part) % tuple(part.flatten().tolist()))
