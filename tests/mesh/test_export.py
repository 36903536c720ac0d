"""Files of an exported model, opened again by another program's reader."""

import numpy as np
import pytest
import torch
import trimesh

from datasets.cameras import Cameras
from datasets.views import Views
from models.base import Model, ModelConfig, StepSize
from models.fields.isosurface import IsosurfaceConfig
from systems.export import ExportConfig, export_surface
from tests.moved import TO_DATASET
from utils.registry import ConfigError

SMALL = {"texture_faces": 3000, "texture_size": 256, "chunk_size": 5000, "keep_components": 1}


class Balls(Model):
    """A large ball and a small one beside it, coloured by position."""

    is_distance = True
    quantities = frozenset()

    def __init__(self, shift: float = 0.0, is_meshed: bool = True):
        super().__init__(ModelConfig(radius=1.0))
        self.shift, self.is_meshed = shift, is_meshed
        self.unused = torch.nn.Parameter(torch.zeros(1))

    @property
    def isosurface(self):
        return IsosurfaceConfig(resolution=48) if self.is_meshed else None

    @property
    def step_size(self):
        return StepSize(1, 1, 1)

    def update(self, step, seed):
        raise NotImplementedError

    def forward(self, rays):
        raise NotImplementedError

    def level(self, points):
        large = points.norm(dim=-1) - 0.5
        small = (points - torch.tensor([0.75, 0.0, 0.0])).norm(dim=-1) - 0.1
        return torch.minimum(large, small) + self.shift

    def surface_color(self, points, normals):
        torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)))
        return 0.5 + points * (1 + self.unused)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("save")
    return export_surface(Balls(), ExportConfig(**SMALL), folder, "it100")


def test_every_file_is_written_beside_the_others(exported):
    _, paths, _ = exported
    names = ["it100-mc48.obj", *(f"it100-mc48-textured.{kind}" for kind in ("obj", "mtl", "png", "glb"))]
    assert [path.name for path in paths] == names
    assert all(path.stat().st_size > 0 for path in paths)


def test_the_report_tells_of_parts_that_were_dropped(exported):
    mesh, _, summary = exported
    assert summary["components"] == 1 and summary["components_dropped"] == 1
    assert summary["is_watertight"] and summary["euler"] == 2
    assert summary["vertices"] == len(mesh.vertices)


def test_the_full_mesh_carries_the_colours_of_its_vertices(exported):
    mesh, paths, _ = exported
    read = trimesh.load(paths[0], process=False)
    np.testing.assert_allclose(read.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    assert read.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.01)
    np.testing.assert_allclose(read.visual.vertex_colors[:, :3] / 255, 0.5 + read.vertices, atol=0.5 / 255 + 1e-3)


@pytest.mark.parametrize("row", [1, 4], ids=["obj", "glb"])
def test_the_texture_shows_the_colours_where_the_uv_point(exported, row):
    read = trimesh.load(exported[1][row], process=False)
    body = read.to_geometry() if isinstance(read, trimesh.Scene) else read
    world = body.vertices if row == 1 else body.vertices @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    assert trimesh.Trimesh(world, body.faces).volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.02)

    material = body.visual.material
    image = material.image if row == 1 else material.baseColorTexture
    # Inside faces, away from seams, the nearest texel is within a texel, 0.01 world units.
    uv, points = body.visual.uv[body.faces].mean(axis=1), world[body.faces].mean(axis=1)
    color = trimesh.visual.color.uv_to_color(uv, image)[:, :3] / 255
    assert np.abs(color - (0.5 + points)).mean() < 0.01
    assert np.abs(color - (0.5 + points)).max() < 0.05


def test_a_glb_stands_upright_and_holds_world_coordinates(exported):
    scene = trimesh.load(exported[1][4], process=False)
    node = scene.graph.nodes_geometry[0]
    rotation, _ = scene.graph[node]
    np.testing.assert_allclose(rotation[:3, :3] @ [0, 0, 1], [0, 1, 0])
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_normals_are_written_with_the_textured_mesh(exported):
    read = trimesh.load(exported[1][1], process=False)
    outward = read.vertices / np.linalg.norm(read.vertices, axis=1, keepdims=True)
    assert (read.vertex_normals * outward).sum(axis=1).min() > 0.9


def test_colours_texture_and_filtering_are_options(tmp_path):
    config = ExportConfig(export_vertex_color=False, texture_size=0)
    mesh, paths, summary = export_surface(Balls(), config, tmp_path / "new", "it1")
    assert [path.name for path in paths] == ["it1-mc48.obj"]
    assert mesh.colors is None and summary["components"] == 2
    assert all(len(line.split()) == 4 for line in paths[0].read_text().splitlines())


def test_files_hold_dataset_coordinates_to_the_last_digit_and_the_mesh_those_of_the_scene(exported, tmp_path):
    mesh, paths, summary = export_surface(Balls(), ExportConfig(**SMALL), tmp_path, "it100", TO_DATASET)
    torch.testing.assert_close(mesh.vertices, exported[0].vertices)
    assert summary["coordinates"] == "dataset" and summary["size"] == pytest.approx([100, 100, 100], rel=0.01)
    # A quarter turn around z, 100 times larger, a million away.
    x, y, z = mesh.vertices.double().T
    expected = np.stack((-100 * y + 1e6, 100 * x + 2e6, 100 * z + 50), axis=1)
    rows = [line.split()[1:4] for line in paths[0].read_text().splitlines() if line.startswith("v ")]
    np.testing.assert_allclose(np.array(rows, dtype=np.float64), expected, rtol=0, atol=2e-4)

    light, scene = trimesh.load(paths[1], process=False), trimesh.load(paths[4], process=False)
    np.testing.assert_allclose(light.bounds.mean(0), [1e6, 2e6, 50], rtol=0, atol=1)
    outward = (light.vertices - [1e6, 2e6, 50]) / 50
    assert (light.vertex_normals * outward).sum(axis=1).min() > 0.9
    upright = scene.to_geometry()
    np.testing.assert_allclose(upright.bounds.mean(0), [1e6, 50, -2e6], rtol=0, atol=1)
    assert upright.volume == pytest.approx(light.volume, rel=1e-3) and upright.volume > 0


def test_scene_coordinates_are_an_option(exported, tmp_path):
    config = ExportConfig(**SMALL, coordinates="scene")
    _, paths, summary = export_surface(Balls(), config, tmp_path, "it100", TO_DATASET)
    assert summary == exported[2] | {"coordinates": "scene"}
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in exported[1]]


def test_an_empty_surface_is_told_and_ends_no_run(tmp_path, capsys):
    assert export_surface(Balls(shift=9.0), ExportConfig(), tmp_path, "it1") == (None, [], None)
    assert "no mesh: no surface in the box" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_field_without_isosurface_options_is_not_meshed(tmp_path, capsys):
    assert export_surface(Balls(is_meshed=False), ExportConfig(), tmp_path, "it1") == (None, [], None)
    assert "isosurface is null" in capsys.readouterr().out


def test_specks_are_dropped_and_separate_parts_are_kept(tmp_path):
    # The small ball has a share of 0.1² / (0.5² + 0.1²) of the area.
    for share, n_dropped in ((0.036, 0), (0.04, 1)):
        config = ExportConfig(texture_size=0, min_component_share=share)
        assert export_surface(Balls(), config, tmp_path, "it1")[2]["components_dropped"] == n_dropped
    assert ExportConfig().min_component_share < 0.036


def test_the_mesh_may_be_smoothed_and_decimated(tmp_path):
    config = ExportConfig(texture_size=0, keep_components=1, smoothing=3, max_faces=800)
    mesh, paths, summary = export_surface(Balls(), config, tmp_path, "it1")
    assert summary["faces"] <= 800 and summary["is_watertight"]
    assert trimesh.load(paths[0]).volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.03)
    # Colours are asked for where the surface ends up.
    torch.testing.assert_close(mesh.colors, (0.5 + mesh.vertices).clamp(0, 1))


def test_faces_that_no_camera_sees_are_dropped_on_request(tmp_path, capsys):
    pose = torch.eye(3, 4)[None].clone()
    pose[:, 2, 3] = 3.0
    cameras = Cameras(pose, torch.full((1, 2), 60.0), torch.full((1, 2), 20.0), torch.full((1, 2), 40))
    views = Views(cameras, ["above"], torch.tensor([0, 1600]), None)
    config = ExportConfig(texture_size=0, keep_components=1, drop_unseen=True)
    mesh, _, summary = export_surface(Balls(), config, tmp_path, "it1", views=views)
    assert not summary["is_watertight"] and 0 < summary["faces_unseen"]
    assert mesh.vertices[:, 2].min() > 0.0 and mesh.vertices[:, 2].max() == pytest.approx(0.5, abs=1e-3)

    cameras.pose[:, 0, 3] = 100.0
    assert export_surface(Balls(), config, tmp_path, "it2", views=views) == (None, [], None)
    assert "no mesh: none of 1 training cameras sees it; set export.drop_unseen to false" in capsys.readouterr().out


def test_the_report_counts_what_the_field_was_asked(exported):
    # A coarse pass over all nodes, and a fine one over some of as many.
    assert 48**3 < exported[2]["field_queries"] < 2 * 48**3


@pytest.mark.parametrize(
    "key",
    ["chunk_size", "texture_faces", "texture_size", "keep_components", "min_component_share", "smoothing", "max_faces"],
)
def test_options_out_of_range_name_their_key(key):
    with pytest.raises(ConfigError, match=f"export.{key} is -1; expected at least"):
        ExportConfig(**{key: -1})
