"""Laws of cameras that are refined with the scene."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.cameras import Cameras
from datasets.module import SceneData
from datasets.synthetic import look_at_origin, spiral
from datasets.views import Views, pixel_offsets
from systems import systems
from systems.experiment import Experiment
from systems.pose_refinement import PoseRefinement, PoseRefinementConfig
from systems.trainer import make_trainer, read_checkpoint
from tests.moved import rendered
from tests.test_training import ROOT, tiny
from utils.config import parse, read, resolve
from utils.registry import ConfigError
from utils.run_directory import add_run_keys, make_folders

ANGLE, SHARE = 0.035, 0.02
"""Size of the known perturbations: radians, and shares of the cameras' distance."""


def some_views(n: int = 7, size: int = 8) -> Views:
    shape = (n, 2)
    position = spiral(n, seed=0) * torch.linspace(3, 5, n)[:, None]
    cameras = Cameras(
        look_at_origin(position), torch.full(shape, 10.0), torch.full(shape, size / 2), torch.full(shape, size)
    )
    return Views(cameras, [str(row) for row in range(n)], pixel_offsets(cameras.size), None)


def attached(views: Views, seed: int = 0, **options: Any) -> PoseRefinement:
    """With offsets at random, as large as the known perturbations."""
    poses = PoseRefinement(PoseRefinementConfig(**options))
    poses.attach(views)
    size = torch.tensor(3 * [ANGLE] + 3 * [SHARE]) / 3**0.5
    poses.offsets.data = size * torch.randn(len(views), 6, generator=torch.Generator().manual_seed(seed))
    return poses


def drawn(views: Views) -> Any:
    generator = torch.Generator().manual_seed(1)
    view = torch.randint(len(views), (50,), generator=generator)
    pixel = torch.randint(8, (50, 2), generator=generator)
    return views.draw(view, pixel, torch.zeros(50, 3)).rays


def test_rays_move_as_their_cameras_do():
    views = some_views()
    poses = attached(views)
    moved, expected = poses(drawn(views), step=0), drawn(poses.refined(views))
    assert torch.allclose(moved.origins, expected.origins, atol=1e-6)
    assert torch.allclose(moved.directions, expected.directions, atol=1e-6)
    assert torch.allclose(moved.directions.norm(dim=-1), torch.ones(50), atol=1e-6)
    assert (moved.origins - drawn(views).origins).norm(dim=-1).min() > 1e-3


def test_cameras_stand_still_at_first_and_can_move_from_there():
    views = some_views()
    poses = PoseRefinement(PoseRefinementConfig())
    poses.attach(views)
    rays = drawn(views)
    moved = poses(rays, step=0)
    assert torch.equal(moved.origins, rays.origins) and torch.allclose(moved.directions, rays.directions, atol=1e-7)
    (moved.origins * torch.randn(50, 3) + moved.directions * torch.randn(50, 3)).sum().backward()
    assert poses.offsets.grad is not None
    assert (poses.offsets.grad.norm(dim=-1) > 0).all() and poses.offsets.grad.isfinite().all()


def test_before_its_first_step_nothing_is_refined():
    views = some_views()
    poses = attached(views, start_step=10)
    for step, is_refined in ((9, False), (10, True)):
        poses.zero_grad()
        poses(drawn(views), step).origins.square().sum().backward()
        assert bool(poses.offsets.grad.any()) == is_refined


def test_what_all_cameras_do_together_is_left_out():
    views = some_views()
    poses = attached(views)
    center = views.cameras.pose[:, :, 3]
    place, axis = (center - center.mean(0)) / poses.scale, torch.tensor([0.3, -0.5, 0.2])
    none, same = torch.zeros_like(place), axis.expand_as(place)
    turn = torch.cat([same, torch.linalg.cross(same, place)], dim=-1)
    for common in (turn, torch.cat([none, same], dim=-1), torch.cat([none, place], dim=-1)):
        poses.offsets.data = common.clone()
        rotation, shift = poses.motion()
        assert torch.allclose(rotation, torch.eye(3).expand_as(rotation), atol=1e-5) and shift.abs().max() < 1e-5
    # Everything else stays: motions are orthogonal to those above.
    poses = attached(views)
    learnt = (poses.offsets.flatten() - poses.gauge @ (poses.gauge.T @ poses.offsets.flatten())).view(-1, 6)
    assert abs((learnt * turn).sum()) < 1e-5 and learnt.norm() > 0.8 * poses.offsets.norm()


def test_rotations_are_those_of_their_vectors():
    views = some_views()
    poses = attached(views)
    poses.gauge = torch.zeros_like(poses.gauge)
    rotation, _ = poses.motion()
    x, y, z = poses.offsets[:, :3].detach().unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).view(-1, 3, 3)
    assert torch.allclose(rotation, torch.linalg.matrix_exp(cross), atol=1e-6)


def test_too_few_cameras_and_those_of_other_photographs_are_refused():
    with pytest.raises(ConfigError, match="needs 3 or more of one scene, not 2 training views of one scene"):
        attached(some_views(2))
    with pytest.raises(ConfigError, match="several scenes"):
        attached(replace(some_views(), scene=torch.zeros(7, dtype=torch.int64)))
    poses, other = PoseRefinement(PoseRefinementConfig()), attached(some_views(5))
    poses.load_state_dict(other.state_dict())
    assert torch.equal(poses.offsets, other.offsets)
    with pytest.raises(ConfigError, match="refined poses of 5 cameras, but the data set has 7"):
        poses.attach(some_views(7))


class Perturbed:
    """The synthetic data set with training cameras that stand a little wrong."""

    def views(self, split: str) -> Views:
        views = rendered("train", n_train_views=16, n_test_views=2, size=32, samples_per_pixel=4)
        return attached(views).refined(views) if split == "train" else views


def pixels_off(views: Views, true: Views) -> float:
    """Mean distance, in pixels, from where cameras see the object's points to where they should."""
    assert true.surface is not None
    points = true.surface.points[:: len(true.surface.points) // 100]
    view = torch.arange(len(true)).repeat_interleave(len(points))
    found, expected = (one.cameras.project(view, points.repeat(len(true), 1))[0] for one in (views, true))
    return (found - expected).norm(dim=-1).mean().item()


def fitted(folder: Path, n_steps: int, *words: str, resume: Path | None = None) -> tuple[Any, Any]:
    """A system that was trained on the perturbed views, and its trainer."""
    fixed = "system.pose_refinement.lr=1e-3", "model.cos_anneal_end=100", "model.num_samples_per_ray=128"
    config = read(ROOT / "configs/demo.yaml", tiny(*fixed, *words, f"trainer.max_steps={n_steps}"))
    resolve(config)
    add_run_keys(config, {"exp_dir": str(folder), "train": True, "resume": None, "resume_weights_only": False})
    experiment = parse(Experiment, config)
    make_folders(Path(experiment.save_dir))
    torch.manual_seed(0)
    system, trainer = systems.make(experiment.system, experiment), make_trainer(experiment, "none")
    if resume is not None:
        read_checkpoint(resume, system)
    trainer.fit(system, SceneData(Perturbed()), ckpt_path=resume, weights_only=True)
    return system, trainer


def written_poses(system: Any) -> torch.Tensor:
    frames = json.loads((Path(system.experiment.save_dir) / "cameras.json").read_text())["frames"]
    return torch.tensor([frame["transform_matrix"][:3] for frame in frames])


def test_known_perturbations_are_recovered(tmp_path):
    grid = ("n_levels=6", "log2_hashmap_size=12")
    words = [f"model.geometry.xyz_encoding_config.{key}" for key in grid]
    system, _ = fitted(tmp_path, 140, *words, "model.samples_per_step=2048", "model.train_num_rays=128")
    given, true = Perturbed().views("train"), Perturbed().views("val")
    refined = system.poses.refined(given)
    before, after = pixels_off(given, true), pixels_off(refined, true)
    assert before > 1.5 and after < 0.45 * before
    # What is written with the mesh is what was learnt.
    assert torch.allclose(written_poses(system), refined.cameras.pose, atol=1e-6)


def test_refined_poses_go_with_the_checkpoint(tmp_path):
    system, trainer = fitted(tmp_path, 3)
    saved, offsets = tmp_path / "3.ckpt", system.poses.offsets.detach().clone()
    trainer.save_checkpoint(saved)
    assert offsets.shape == (16, 6) and (offsets.norm(dim=-1) > 0).all()
    # A checkpoint is evaluated without its training: views to train on are read when somebody asks for them.
    again = systems.make(system.config, system.experiment)
    again.load_state_dict(read_checkpoint(saved, again)["state_dict"])
    assert torch.equal(again.poses.offsets, offsets)
    given = Perturbed().views("train")
    assert torch.equal(again._refined(given).cameras.pose, system.poses.refined(given).cameras.pose)
    resumed, _ = fitted(tmp_path, 5, resume=saved)
    assert resumed.global_step == 5 and not torch.equal(resumed.poses.offsets, offsets)
    assert (resumed.poses.offsets - offsets).abs().max() < 5e-3
    # Held-out views stay as they are.
    held_out = trainer.datamodule.views("val")
    assert system._views("val") is held_out
    assert not torch.equal(system._views("train").cameras.pose, trainer.datamodule.views("train").cameras.pose)


def test_a_new_run_from_old_weights_says_that_poses_begin_anew(tmp_path, caplog):
    system, trainer = fitted(tmp_path, 3)
    trainer.save_checkpoint(saved := tmp_path / "3.ckpt")
    again = systems.make(system.config, system.experiment)
    again.load_model_weights(read_checkpoint(saved, again, prefix="model."))
    assert len(again.poses.offsets) == 0
    assert "--resume_weights_only takes the model alone: poses of the photographs begin anew" in caplog.text
