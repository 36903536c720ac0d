"""Files of meshes, opened by readers that share no code with their writer."""

import json
import struct
from dataclasses import replace

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import trimesh

from models.texture_atlas import bake, unwrap
from systems.mesh_files import export_mesh
from tests.mesh.ball import RADIUS, ball_color, ball_mesh
from tests.moved import TO_DATASET

ENDINGS = ("obj", "ply", "textured.obj", "textured.mtl", "textured.png", "textured.glb")


@pytest.fixture(scope="module")
def meshes():
    full = ball_mesh(3)
    textured = bake(unwrap(full, 128), lambda points, normals: ball_color(points), 128)
    return replace(full, colors=ball_color(full.vertices)), textured


@pytest.fixture(scope="module")
def paths(meshes, tmp_path_factory):
    """Files by the endings of their names."""
    return dict(zip(ENDINGS, export_mesh(*meshes, tmp_path_factory.mktemp("files"), "it7-mc48"), strict=True))


def looked_up(uv, pixels):
    """Colours of the texels nearest to texture coordinates, by the definition: v runs up, rows run down."""
    height, width, _ = pixels.shape
    column = np.clip(np.floor(uv[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(np.floor((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
    return pixels[row, column] / 255


def assert_coloured(points, color):
    # A texel is 0.02 world units wide.
    assert np.abs(color - ball_color(torch.from_numpy(points)).numpy()).max() < 0.04


def test_names_have_no_spaces_and_suffixes_that_programs_know(paths):
    assert all(path.name.endswith(ending) and " " not in path.name for ending, path in paths.items())


@pytest.mark.parametrize("ending", ["obj", "ply"])
def test_opencv_reads_the_full_mesh_and_its_colours(meshes, paths, ending):
    vertices, faces, _, colors, _ = cv2.loadMesh(str(paths[ending]))
    np.testing.assert_allclose(vertices[0], meshes[0].vertices, atol=1e-6)
    np.testing.assert_array_equal(np.array(faces).reshape(-1, 3), meshes[0].faces)
    scale = 255 if ending == "ply" and colors.max() > 1 else 1
    np.testing.assert_allclose(colors[0] / scale, meshes[0].colors, atol=0.5 / 255 + 1e-6)


def test_opencv_reads_the_texture_coordinates_of_an_obj(paths):
    points, faces, normals, _, uv = cv2.loadMesh(str(paths["textured.obj"]))
    assert len(faces) == 1280
    assert (points[0] * normals[0]).sum(axis=1).min() > 0.99 * RADIUS
    assert_coloured(points[0], looked_up(uv.reshape(-1, uv.shape[-1]), imageio.imread(paths["textured.png"])))


def test_trimesh_reads_a_ply(meshes, paths):
    read = trimesh.load(paths["ply"], process=False)
    np.testing.assert_allclose(read.vertices, meshes[0].vertices, atol=1e-6)
    np.testing.assert_array_equal(read.faces, meshes[0].faces)
    np.testing.assert_allclose(read.visual.vertex_colors[:, :3] / 255, meshes[0].colors, atol=0.5 / 255 + 1e-6)


def test_a_ply_far_away_keeps_its_digits(meshes, tmp_path):
    _, path = export_mesh(replace(meshes[0], colors=None), None, tmp_path, "far", TO_DATASET)
    x, y, z = meshes[0].vertices.double().T
    expected = torch.stack([-100 * y + 1e6, 100 * x + 2e6, 100 * z + 50], dim=-1)
    np.testing.assert_allclose(trimesh.load(path, process=False).vertices, expected, rtol=0, atol=1e-6)


def test_the_material_of_an_obj_is_its_texture_and_no_more(paths):
    obj = paths["textured.obj"].read_text().split("\n", 2)
    assert obj[:2] == [f"mtllib {paths['textured.mtl'].name}", "usemtl surface"]
    entries = dict(line.split(" ", 1) for line in paths["textured.mtl"].read_text().splitlines())
    assert entries == {
        "newmtl": "surface",
        "Ka": "0 0 0",
        "Kd": "1 1 1",
        "Ks": "0 0 0",
        "illum": "1",
        "map_Kd": paths["textured.png"].name,
    }


KINDS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}


class Glb:
    """Binary glTF by the specification: a header, a chunk of JSON, a chunk of bytes."""

    def __init__(self, path):
        content = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        n_json, kind = struct.unpack_from("<I4s", content, 12)
        assert kind == b"JSON" and n_json % 4 == 0
        self.tree = json.loads(content[20 : 20 + n_json])
        n_bytes, kind = struct.unpack_from("<I4s", content, 20 + n_json)
        assert kind == b"BIN\0" and n_bytes % 4 == 0 and length == 28 + n_json + n_bytes
        self.bytes = content[28 + n_json :]
        assert self.tree["buffers"] == [{"byteLength": n_bytes}]

    def view(self, row):
        view = self.tree["bufferViews"][row]
        first = view.get("byteOffset", 0)
        assert view["buffer"] == 0 and "byteStride" not in view and first + view["byteLength"] <= len(self.bytes)
        return self.bytes[first : first + view["byteLength"]]

    def array(self, row):
        accessor = self.tree["accessors"][row]
        kind, width = KINDS[accessor["componentType"]], WIDTHS[accessor["type"]]
        first, n = accessor.get("byteOffset", 0), accessor["count"] * width
        values = np.frombuffer(self.view(accessor["bufferView"]), kind, n, first).reshape(-1, width)
        for name, bound in (("min", values.min(axis=0)), ("max", values.max(axis=0))):
            if name in accessor:
                np.testing.assert_array_equal(np.float32(accessor[name]), bound)
        return values


def test_a_glb_is_what_the_specification_says(meshes, paths):
    glb = Glb(paths["textured.glb"])
    (mesh,) = glb.tree["meshes"]
    (primitive,) = mesh["primitives"]
    assert primitive.get("mode", 4) == 4
    parts = {name: glb.array(row) for name, row in primitive["attributes"].items()}
    faces = glb.array(primitive["indices"]).reshape(-1, 3)
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} <= parts.keys() and "min" in glb.tree["accessors"][
        primitive["attributes"]["POSITION"]
    ]
    np.testing.assert_allclose(parts["POSITION"], meshes[1].vertices, atol=1e-6)
    np.testing.assert_array_equal(faces, meshes[1].faces)
    np.testing.assert_allclose(np.linalg.norm(parts["NORMAL"], axis=1), 1, atol=1e-4)

    material = glb.tree["materials"][primitive["material"]]
    assert material["extensions"] == {"KHR_materials_unlit": {}} and "KHR_materials_unlit" in glb.tree["extensionsUsed"]
    surface = material["pbrMetallicRoughness"]
    assert surface["metallicFactor"] == 0 and surface["roughnessFactor"] == 1
    assert surface.get("baseColorFactor", [1, 1, 1, 1]) == [1, 1, 1, 1]
    image = glb.tree["images"][glb.tree["textures"][surface["baseColorTexture"]["index"]]["source"]]
    assert image["mimeType"] == "image/png"
    pixels = imageio.imread(glb.view(image["bufferView"]), extension=".png")
    # glTF has the origin of texture coordinates at the upper left.
    assert_coloured(parts["POSITION"], looked_up([1, -1] * parts["TEXCOORD_0"] + [0, 1], pixels[..., :3]))


def test_trimesh_reads_the_glb_as_the_obj(paths):
    glb, obj = (trimesh.load(paths[f"textured.{kind}"], process=False) for kind in ("glb", "obj"))
    (body,) = glb.geometry.values()
    np.testing.assert_allclose(body.vertices, obj.vertices, atol=1e-6)
    np.testing.assert_allclose(body.visual.uv, obj.visual.uv, atol=1e-6)
    image = np.asarray(body.visual.material.baseColorTexture)[..., :3]
    np.testing.assert_array_equal(image, np.asarray(obj.visual.material.image)[..., :3])
