"""Training on a GPU, and everywhere on a CPU that plays it: nothing waits, padding changes nothing, and whole runs end.

    python -m pytest tests -k gpu      all that a machine with a GPU should be asked

On a GPU, torch itself reports who waits; on the stand-in (tests/ops/gpu.py, tests/ops/gpu_tensor.py), every operation
that would make the host wait is refused, and so is whatever mixes tensors of both places.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.plugins.precision import MixedPrecision

import launch
from datasets import datasets
from datasets.module import SceneData
from models.base import Model
from models.rendering import capacity
from systems import systems
from systems.automatic import automatic_keys, decided
from systems.experiment import Experiment
from systems.loss_functions import LossSet
from systems.trainer import make_trainer
from tests.models.small import rays_along_x, small_nerf, small_neus
from tests.ops import gpu_tensor
from tests.ops.gpu import device_of, play, stand_in
from tests.test_training import TINY_DATA, tiny
from utils import late_counts
from utils.config import parse, read, resolve
from utils.late_counts import LAG
from utils.run_directory import add_run_keys
from utils.schedule import Schedule
from utils.types import Rays, Rendered, Target

ROOT = Path(__file__).parent.parent
CONFIGS = ["demo", "neus-colmap-fast", "neuralangelo-dtu-wmask", "nerf-blender"]
DATA = {"name": "synthetic", "n_train_views": 6, "n_test_views": 2, "size": 24, "samples_per_pixel": 4}
SHELL = {"name": "sdf-shell", "resolution": 16}
SMALL = {"train_num_rays": 64, "max_train_num_rays": 256, "samples_per_step": 2048, "num_samples_per_ray": 64}
GEOMETRY = {
    "name": "volume-sdf",
    "feature_dim": 5,
    "grad_type": "finite_difference",
    "finite_difference_eps": 0.1,  # so that differences are no rounding
    "xyz_encoding_config": {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 10, "include_xyz": True},
    "mlp_network_config": {"otype": "VanillaMLP", "n_neurons": 32, "sphere_init": True},
}
BACKGROUND = {
    "learned_background": True,
    "num_samples_per_ray_bg": 16,
    "occupancy_bg": {"resolution": 16},
    "geometry_bg": {
        "name": "volume-density",
        "feature_dim": 8,
        "density_activation": "trunc_exp",
        "isosurface": None,
        "xyz_encoding_config": {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8},
    },
    "texture_bg": {"name": "volume-radiance", "input_feature_dim": 8, "color_activation": "sigmoid"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(autouse=True, params=["sm_90", "gpu"])
def device(request, monkeypatch, folder):
    torch.manual_seed(0)
    monkeypatch.setattr(capacity, "LEAST", 64)
    if request.param == "gpu":
        yield device_of("gpu", monkeypatch, folder)
        return
    play(monkeypatch, stand_in(folder, 90), gpu_tensor.DEVICE.type)
    # A number that has arrived is read without asking anyone.
    monkeypatch.setattr(late_counts, "_sent", lambda number: lambda: int(number.here))
    with gpu_tensor.playing(monkeypatch) as device:
        yield device


@contextmanager
def nobody_waits(device: torch.device) -> Iterator[None]:
    if device.type == "cuda":
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
    else:
        with gpu_tensor.nobody_waits():
            yield


class LooksBack(torch.autograd.Function):
    """Asks for a number in its backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
        return upstream * upstream.sum().item()


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: LooksBack.apply(x.requires_grad_()).sum().backward(),
    ],
)
def test_whoever_waits_is_noticed(look, device):
    x = torch.ones(4, device=device)
    with pytest.raises((AssertionError, RuntimeError)), nobody_waits(device):
        look(x)
    with nobody_waits(device):
        x.detach().mul(2).sum()


def test_numbers_of_both_places_are_refused(device):
    x = torch.ones(4, device=device)
    for mix in (lambda y: x + y, lambda y: torch.cat([x, y]), lambda y: x.index_select(0, y.long()), x.dot):
        with pytest.raises(RuntimeError):
            mix(torch.zeros(4))
    with pytest.raises(TypeError):
        x.numpy()
    assert (x + torch.ones(())).sum().item() == 8  # single numbers of the host may come along
    assert torch.equal(x[torch.tensor([0, 1])].cpu(), torch.ones(2))


class Watch(pl.Callback):
    """Steps of a training in which nobody may wait, each to the start of the next."""

    def __init__(self, device: torch.device, steps: range):
        self.device, self.steps, self.n_watched = device, steps, 0
        self.guard = ExitStack()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.guard.close()
        if trainer.global_step in self.steps:
            self.guard.enter_context(nobody_waits(self.device))
            self.n_watched += 1

    def on_exception(self, *_: Any) -> None:
        self.guard.close()  # it may not outlive the training


def experiment_of(name: str, folder: Path, n_steps: int) -> Experiment:
    """A configuration at a size that takes a moment a step."""
    file = ROOT / "configs" / f"{name}.yaml"
    missing = [key for key in ("scene", "root_dir") if f"{key}: ???" in file.read_text()]
    config = read(file, [f"dataset.{key}=somewhere" for key in missing])
    answers = {"model.radius": 1.25, "model.learned_background": True}
    config = decided(config, {key: answers[key] for key in automatic_keys(config)})
    resolve(config)
    OmegaConf.update(config, "dataset", DATA, merge=False)
    for part in ("geometry", "geometry_bg"):
        if part in config.model:
            config.model[part].xyz_encoding_config.n_levels = 4
            config.model[part].xyz_encoding_config.log2_hashmap_size = 10
    kind = {} if config.model.name == "nerf" else {"name": "moving-average"}
    config.model.occupancy = {**kind, **config.model.get("occupancy", {}), "resolution": 16}
    if config.model.get("learned_background") and config.model.name == "neus":
        config.model.occupancy_bg = {"resolution": 16}
    OmegaConf.update(config, "model", SMALL)
    OmegaConf.update(config, "trainer", {"max_steps": n_steps, "limit_val_batches": 0, "log_every_n_steps": 10000})
    add_run_keys(config, {"exp_dir": str(folder), "train": True, "resume": None, "resume_weights_only": False})
    return parse(Experiment, config)


def train(
    experiment: Experiment, folder: Path, device: torch.device, *callbacks: pl.Callback, resume: Any = None
) -> Any:
    trainer = make_trainer(experiment, "0" if device.type == "cuda" else "none", folder / "runs")
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    system = systems.make(experiment.system, experiment)
    trainer.fit(system, SceneData(datasets.make(experiment.dataset)), ckpt_path=resume, weights_only=True)
    return system


@pytest.mark.parametrize("name", CONFIGS)
def test_no_step_waits_but_those_that_refresh_or_log(name, tmp_path, device):
    watch = Watch(device, range(4, 9))
    system = train(experiment_of(name, tmp_path, 10), tmp_path, device, watch)
    assert watch.n_watched == 5
    assert system.model.march.capacity.rows(100) is not None  # samples were padded
    assert all(value.isfinite().all() for value in system.model.parameters())


class Save(pl.Callback):
    """Saves a checkpoint after a step."""

    def __init__(self, path: Path, step: int):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path, device):
    if device.type == "cuda":
        pytest.skip("a GPU adds to tables in any order, so no two trainings on it are equal")
    middle = tmp_path / "middle.ckpt"
    whole = train(experiment_of("demo", tmp_path, 30), tmp_path, device, Save(middle, 21))
    late = torch.load(middle, weights_only=True)["late_counts"]
    assert all(len(state["travelling"]) == LAG for state in late.values()) and len(late) == 3
    resumed = train(experiment_of("demo", tmp_path, 30), tmp_path, device, resume=middle)
    assert whole.budget.n_rays == resumed.budget.n_rays != SMALL["train_num_rays"]
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert int(whole.n_samples_seen) == int(resumed.n_samples_seen)


MODELS = {
    "probes and weights": lambda **options: small_neus(
        occupancy=SHELL, variance={"init_val": 0.5}, num_probes=50, min_weight=1e-3, adaptive_step=True, **options
    ),
    "finite differences": lambda **options: small_neus(geometry=GEOMETRY, occupancy=SHELL, **options),
    "background": lambda **options: small_neus(grid_prune=False, **BACKGROUND, **options),
    "density": lambda **options: small_nerf(occupancy={"resolution": 16}, **options),
}


@pytest.fixture(params=MODELS)
def model(request, device) -> Model:
    model = MODELS[request.param](randomized=False).to(device).train()
    model.update(0, 0)
    return model


def losses_and_gradients(model: Model, rays: Rays, *others: str) -> tuple[Rendered, dict[str, torch.Tensor]]:
    """Everything that a training step makes of rays, with all losses that the model has quantities for."""
    names = ["rgb", "rgb_l1", "rgb_mse", "mask", "opaque", "distortion"]
    needs = {"eikonal": "gradient", "sparsity": "sdf", "curvature": "laplacian", "empty": "probes"}
    needs |= dict.fromkeys(others, "background")
    names += [name for name, quantity in needs.items() if quantity in model.quantities]
    losses = LossSet({f"lambda_{name}": Schedule.constant(1.0) for name in names}, model.quantities | {"mask"})
    torch.manual_seed(1)  # probes
    model.zero_grad()
    rendered = model(rays)
    report = losses(rendered, Target(0.5 * rays.origins.sin().abs(), rays.origins[:, 1].cos().abs()), 0, 0)
    report.total.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return rendered, {name: term.detach() for name, term in report.terms.items()} | gradients


def assert_same_training(padded: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> None:
    assert padded.keys() == exact.keys()
    for name, value in exact.items():
        error = (padded[name] - value).abs().max()
        assert error <= 2e-4 * value.abs().max() + 1e-7, (name, float(error), float(value.abs().max()))


def test_padding_changes_nothing(model, device):
    rays = rays_along_x(60, spread=1.2).to(device)  # the outermost miss the box
    (unpadded, exact), *later = [losses_and_gradients(model, rays, "distortion_bg") for _ in range(6)]
    assert not unpadded.samples.is_padded
    rendered, padded = later[-1]
    assert rendered.samples.is_padded and rendered.is_whole.all()
    assert len(rendered.samples) > len(unpadded.samples) == int(rendered.samples.offsets[-1])
    assert int(rendered.n_samples) == unpadded.n_samples
    assert torch.allclose(rendered.color, unpadded.color, atol=1e-5)
    assert_same_training(padded, exact)


def test_rays_without_room_are_as_if_they_had_not_been_drawn(model, device, monkeypatch):
    rays = rays_along_x(60, spread=0.8).to(device)
    n_samples = len(losses_and_gradients(model, rays)[0].samples)
    (n_marched, _), *_ = model.march.capacity.counts.recent
    monkeypatch.setattr(model.march.capacity, "rows", lambda n_rays: int(0.7 * n_marched))
    rendered, some = losses_and_gradients(model, rays)
    n_whole = int(rendered.is_whole.sum())
    assert 20 < n_whole < 50 and rendered.is_whole[:n_whole].all()
    assert int(rendered.samples.offsets[-1]) < n_samples
    # The budget and the room that follows hear what all rays would have had.
    assert int(rendered.n_samples) == pytest.approx(int(rendered.samples.offsets[-1]) * 60 / n_whole, rel=0.5)
    monkeypatch.setattr(model.march.capacity, "rows", lambda n_rays: None)
    _, exact = losses_and_gradients(model, rays[:n_whole])
    assert_same_training(some, exact)


GENERIC = [*(f"dataset.{key}={value}" for key, value in (TINY_DATA | {"size": 12}).items()), "model.train_num_rays=16"]
GENERIC += ["trainer.max_steps=4", "trainer.val_check_interval=2"]
RUNS = {
    "demo": tiny("trainer.max_steps=10", "system.pose_refinement={}", "system.exposure.name=gain"),
    "nerf-synthetic": [*GENERIC, "model.implicit_function.isosurface.resolution=8"],
    "idr-synthetic": [
        *GENERIC,
        "model.implicit_function.dims=[48,48,48,48]",
        "model.implicit_function.isosurface.resolution=8",
    ],
    "srn-synthetic": GENERIC,
    "voxels-synthetic": [*GENERIC, "model.implicit_function.isosurface.resolution=8"],
}


@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 1e-3}])
def test_a_training_in_half_precision(options, tmp_path, device, monkeypatch):
    experiment = experiment_of("nerf-blender", tmp_path, 10)
    experiment.trainer |= {"precision": 16, **options}
    if device.type != "cuda":
        monkeypatch.setattr(gpu_tensor, "PRECISION", lambda: MixedPrecision("16-mixed", "cpu"))
    system = train(experiment, tmp_path, device)
    scaler = system.trainer.precision_plugin.scaler
    assert scaler is not None and scaler.get_scale() > 1
    assert all(value.isfinite().all() for value in system.model.parameters())


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run_ends_with_its_results(name, tmp_path, device):
    places = ["--exp_dir", str(tmp_path / "exp"), "--runs_dir", str(tmp_path / "runs")]
    gpu = ["--gpu", "0" if device.type == "cuda" else "none"]
    file = str(ROOT / "configs" / f"{name}.yaml")
    assert launch.main(["--config", file, "--train", *places, *gpu, *RUNS[name]]) == 0
    (folder,) = (tmp_path / "exp" / name).iterdir()
    assert json.loads((folder / "metrics.json").read_text())["test"]["psnr"] > 0


@pytest.mark.parametrize("name", ["demo", "neus-blender", "nerf-blender"])
def test_a_gpu_learns(name, tmp_path, device):
    if device.type != "cuda":
        pytest.skip("whether a CPU learns is tested elsewhere, faster")
    seen = Seen()
    system = train(experiment_of(name, tmp_path, 1000), tmp_path, device, seen)
    assert sum(seen.losses[-20:]) < 0.5 * sum(seen.losses[:20])
    assert all(value.isfinite().all() for value in system.model.parameters())


class Seen(pl.Callback):
    """The losses of all steps."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, system: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
