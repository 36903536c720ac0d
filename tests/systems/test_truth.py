from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

import systems.truth
from datasets.crop_volume import CropVolume
from datasets.surfaces import cloud_surface
from systems.truth import cropped, data_truth, depth_truth, file_truth
from tests.moved import TO_DATASET
from tests.spheres import Spheres
from utils.registry import ConfigError
from utils.similarity import carried

VIEWS = Spheres(Spheres.Config()).views("test")
IN_SCENE = replace(VIEWS, to_dataset=None)


def test_depth_maps_are_points_of_the_surface_in_the_coordinates_of_the_data_set():
    truth = depth_truth(IN_SCENE, seed=0)
    assert len(truth.points) == int((VIEWS.depth > 0).sum()) > 100
    assert (truth.points.norm(dim=-1) - 1).abs().max() < 1e-5 and truth.spacing > 0
    torch.testing.assert_close(depth_truth(VIEWS, seed=0).points, carried(truth.points, TO_DATASET))


def test_of_many_pixels_some_are_drawn(monkeypatch):
    monkeypatch.setattr(systems.truth, "MOST_PIXELS", 80)
    first, again, other = (depth_truth(IN_SCENE, seed).points for seed in (0, 0, 1))
    assert len(first) == 80 and torch.equal(first, again) and not torch.equal(first, other)


def test_depth_maps_that_say_nothing_are_told():
    with pytest.raises(ConfigError, match="--depth: the data set has no depth maps; use --truth FILE"):
        depth_truth(replace(VIEWS, depth=None), seed=0)
    with pytest.raises(ConfigError, match="--depth: the depth maps are empty"):
        depth_truth(replace(VIEWS, depth=torch.zeros_like(VIEWS.depth)), seed=0)


def test_the_surface_of_a_data_set_comes_in_its_coordinates():
    assert data_truth(IN_SCENE) is VIEWS.surface
    moved = data_truth(VIEWS)
    query = 2 * torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double() - 1
    expected = 100 * (query.norm(dim=-1) - 1).abs()
    torch.testing.assert_close(moved.distance(carried(query, TO_DATASET)), expected, atol=1e-6, rtol=1e-6)
    assert moved.diameter == pytest.approx(200)
    # A quarter turn around z.
    torch.testing.assert_close(moved.normals[:, 0], -VIEWS.surface.normals[:, 1].double())
    with pytest.raises(ConfigError, match="knows no true surface; add --truth FILE, --depth SPLIT or --dtu DIR"):
        data_truth(replace(VIEWS, surface=None))


def test_clouds_are_averaged_in_voxels_and_meshes_are_not(tmp_path: Path):
    points = torch.tensor([[0.1, 0, 0], [0.3, 0, 0], [1.7, 0, 0]])
    trimesh.PointCloud(points.numpy()).export(tmp_path / "cloud.ply")
    assert len(file_truth(tmp_path / "cloud.ply", None).points) == 3
    merged = file_truth(tmp_path / "cloud.ply", 1.0)
    torch.testing.assert_close(merged.points, torch.tensor([[0.2, 0, 0], [1.7, 0, 0]]).double(), atol=1e-6, rtol=0)
    trimesh.creation.box().export(tmp_path / "box.ply")
    with pytest.raises(ConfigError, match="--voxel has no effect: .*box.ply holds triangles"):
        file_truth(tmp_path / "box.ply", 1.0)


def test_a_cropped_truth_starts_no_distances_outside():
    truth = cloud_surface(torch.tensor([[0.5, 0.5, 0.5], [3, 0.5, 0.5], [0.5, 0.5, 3]]))
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]).double()
    inside = cropped(truth, CropVolume(2, 0.0, 1.0, square))
    assert inside.points.tolist() == [[0.5, 0.5, 0.5]] and inside.distance is truth.distance
    with pytest.raises(ConfigError, match="--crop leaves nothing of the truth"):
        cropped(truth, CropVolume(2, 10.0, 11.0, square))
