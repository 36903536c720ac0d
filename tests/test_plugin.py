"""A renderer of one's own: one file outside of the repository and one line of YAML."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import launch
from models import renderers
from models.fields.implicit import Sizes
from utils.types import RayPoints

pytestmark = pytest.mark.usefixtures("few_points")

PLUGIN = '''
from dataclasses import dataclass

import torch

from models import renderers
from models.fields.implicit import RadianceFunction
from models.rendering.renderer import Renderer
from utils.types import Rendered


@renderers.register("x-ray")
class XRay(Renderer):
    """Absorption alone: what is dense is dark, nothing hides anything."""

    @dataclass
    class Config:
        absorption: float = 1.0
        """Darkness per density and length."""

    asks = RadianceFunction

    def __init__(self, config, sizes, radius):
        super().__init__()
        self.config, self.n_channels = config, sizes.n_channels

    def forward(self, rays, points, functions, context):
        output = functions[0](rays, points, context)
        length = points.t.diff(dim=1, append=points.t[:, -1:])
        light = torch.exp(-self.config.absorption * (length * torch.relu(output.density)).sum(1))
        color = light[:, None].expand(-1, self.n_channels)
        return Rendered(color, 1 - light, points.t.mean(1), is_dense=True, n_samples=points.t.numel())

    def surface_color(self, points, normals, function, context):
        return torch.zeros_like(points)
'''
CONFIG = """
name: x-ray
tag: ""
seed: 42
dataset: {name: synthetic, n_train_views: 4, n_test_views: 1, size: 16, samples_per_pixel: 1}
model:
  name: generic
  radius: 1.3
  train_num_rays: 32
  background_color: white
  ray_sampler: {name: adaptive, n_pts_per_ray_training: 8, n_pts_per_ray_evaluation: 8}
  implicit_function:
    {name: nerf-mlp, n_hidden_neurons_xyz: 16, n_hidden_neurons_dir: 8, n_layers_xyz: 2, append_xyz: [],
     isosurface: null}
  renderer: {name: x-ray, absorption: 0.5}
system:
  name: generic-system
  loss: {lambda_rgb_mse: 1.0, lambda_mask_bce: 0.1}
  optimizer: {name: Adam, args: {lr: 1.0e-3}, params: {functions: {lr: 2.0e-3}}}
trainer: {max_steps: 4, log_every_n_steps: 2, limit_val_batches: 0, num_sanity_val_steps: 0}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "x_ray_renderer.py").write_text(PLUGIN)
    (tmp_path / "x-ray.yaml").write_text(CONFIG)
    os.environ.pop("INSTANT_SURFACES_TRIAL", None)
    folders = ["--exp_dir", str(tmp_path / "exp"), "--runs_dir", str(tmp_path / "runs")]
    return ["--config", str(tmp_path / "x-ray.yaml"), "--gpu", "none", *folders]


@pytest.fixture(autouse=True)
def _forget():
    yield
    renderers._parts.pop("x-ray", None)


def test_a_renderer_from_outside_trains_and_is_scored(command, tmp_path):
    plugin = str(tmp_path / "x_ray_renderer.py")
    assert launch.main([*command, "--import", plugin, "--train"]) == 0
    (folder,) = (tmp_path / "exp/x-ray").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    scores = metrics["test"]
    assert metrics["step"] == 4
    assert all(np.isfinite(scores[name]) for name in ("psnr", "psnr_fg", "mask_iou", "depth_abs_fg"))
    assert scores["views"][0]["psnr_fg"] == scores["psnr_fg"]
    logged = (folder / "csv_logs/metrics.csv").read_text().splitlines()[0]
    assert "train/loss_rgb_mse" in logged and "train/loss_mask_bce" in logged


def test_without_its_import_the_known_renderers_are_named(command, capsys):
    assert launch.main([*command, "--train"]) == 2
    said = capsys.readouterr().err
    assert "model.renderer.name: unknown renderer 'x-ray'" in said and "multipass-ea" in said


def test_it_sees_through(tmp_path, command):
    launch.import_plugins([str(tmp_path / "x_ray_renderer.py")])
    kind = renderers.get("x-ray")
    renderer = kind(kind.Config(absorption=2.0), Sizes(), 1.0)

    class Fog(torch.nn.Module):
        def forward(self, rays, points, context):
            from models.fields.implicit import FieldOutput

            return FieldOutput(torch.ones_like(points.t), torch.zeros(*points.t.shape, 3))

    points = RayPoints(torch.linspace(0, 3, 7).expand(2, 7))
    seen = renderer(None, points, [Fog()], None)
    torch.testing.assert_close(seen.color, torch.full((2, 3), -6.0).exp())
