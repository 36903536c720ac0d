"""The one LightningModule: draws rays, trains, evaluates, logs and exports any model; it knows no method."""

import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from datasets.inspection import inspect_scene
from datasets.inspection_files import write_inspection
from datasets.inspection_report import warnings
from datasets.module import SceneData
from datasets.views import Views
from models import models
from models.base import Model
from systems import exposures, systems
from systems.budget import RayBudget
from systems.camera_file import CAMERAS, restate_cameras, write_cameras
from systems.evaluation import Scores, evaluate, gathered, mean_scores, summary, told
from systems.export import export_surface
from systems.image_metrics import chosen_metrics
from systems.loss_functions import LossReport, LossSet
from systems.mesh_scores import mesh_scores
from systems.optim import OptimizerConfig, SchedulerConfig, forget, make_optimizers
from systems.panels import Picture, save_image, write_video
from systems.pose_refinement import PoseRefinement, PoseRefinementConfig
from systems.preview import preview
from systems.supervision import DATA, given_by
from systems.training_log import logged, shown
from systems.training_rays import backdrop, draw_rays
from utils.callbacks import ProgressLine
from utils.config import slot
from utils.late_counts import LateCounts
from utils.notice import notice
from utils.randomness import reseed
from utils.registry import ConfigError
from utils.run_directory import write_metrics
from utils.schedule import Schedule
from utils.similarity import IDENTITY
from utils.types import RayBatch, Rays, Rendered


@systems.register("nerf-system", "neus-system", "generic-system")
class Reconstruction(pl.LightningModule):
    """Fits a model to posed photographs.

    The step counts in a buffer of its own, because Lightning restores its counter for training only and schedules
    must be right when a checkpoint is tested or exported. All randomness is a function of (seed, rank, step).

    Args:
        config: the `system` section.
        experiment: the whole configuration.

    Attributes:
        to_dataset: [4, 4] float64 similarity, scene to dataset, of the views that were trained on. No buffer, because
            buffers follow the weights to devices and precisions that cannot hold it.
    """

    @dataclass
    class Config:
        name: Literal["nerf-system", "neus-system", "generic-system"]
        """The families' systems; they differ only in the losses that their configurations weight."""
        loss: dict[str, Schedule] = field(default_factory=dict)
        """Weights `lambda_<loss>` and options of losses; numbers or schedules."""
        optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
        """How parameters follow their gradients."""
        scheduler: SchedulerConfig | None = None
        """How the learning rate changes; null keeps it."""
        warmup_steps: int = 0
        """A number for interpolations: the length of a warm-up."""
        constant_steps: int = 0
        """A number for interpolations: the length of a constant phase."""
        pose_refinement: PoseRefinementConfig | None = None
        """How training cameras are refined; null keeps them. Those of held-out views are never touched."""
        exposure: object | None = slot(exposures, default=None)
        """What photographs are exposed like, learnt and left out where views are scored; null: all alike."""
        points_per_step: int = 1024
        """Sparse points that a step draws for lambda_sparse_points, per device."""

    step: Tensor

    def __init__(self, config: "Reconstruction.Config", experiment: Any):
        super().__init__()
        self.config, self.experiment = config, experiment
        reseed(experiment.seed)
        self.model: Model = models.make(experiment.model)
        self.poses = None if config.pose_refinement is None else PoseRefinement(config.pose_refinement)
        size = self.model.step_size
        self.exposure = None if config.exposure is None else exposures.make(config.exposure)
        self.budget = RayBudget(size.n_rays, size.limit, size.n_samples, size.is_dynamic)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        # Losses are checked before anything is loaded; what targets hold is known only with the data.
        LossSet(config.loss, self._rendered_quantities | DATA)
        self.metrics = chosen_metrics(experiment.metrics)
        self.train_seconds = 0.0
        self.n_samples_seen: int | Tensor = 0
        self.to_dataset = IDENTITY
        self._scores: Scores = {}

    def configure_optimizers(self) -> Any:
        others = [group for part in (self.poses, self.exposure) if part is not None for group in part.groups()]
        # A fused step takes the scale of 16-bit gradients off by itself, too late for them to be clipped.
        is_scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        is_fused = not (is_scaled and self.trainer.gradient_clip_val)
        return make_optimizers(self.config.optimizer, self.config.scheduler, self.model, others, is_fused)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.poses is not None:
            self.poses.attach(self.trainer.datamodule.views("train"))  # type: ignore[attr-defined]

    def on_train_end(self) -> None:
        if self.poses is not None and self.trainer.is_global_zero:
            self._write_cameras("train")

    def on_train_start(self) -> None:
        views = self._views("train")
        self.losses = LossSet(self.config.loss, self._rendered_quantities | given_by(views))
        self.to_dataset = IDENTITY if views.to_dataset is None else views.to_dataset.cpu()
        if self.trainer.is_global_zero:
            self._show_scene()

    def _show_scene(self) -> None:
        """Draws what is about to be trained on, and says what may go wrong with it."""
        splits = {split: self._views(split) for split in ("train", "val")}
        scene = inspect_scene(splits, self.model.radius, self.model.config.sees_background)
        for warning in warnings(scene):
            notice(warning)
        written = [*write_inspection(scene, self._folder()), self._write_cameras("train")]
        print("\n".join(str(path.resolve()) for path in written))

    def training_step(self, batch: Any, batch_idx: int) -> Float[Tensor, ""]:
        began = time.perf_counter()
        self.step.fill_(self.global_step)
        step = self.global_step
        reseed(self.experiment.seed, self.global_rank, step)
        self.model.update(step, self.experiment.seed)
        if replaced := self.model.arrange(step):
            forget(self.trainer.optimizers[0], replaced)
        drawn = self._draw_rays()
        rendered = self._rendered(drawn.rays)
        report = self.losses(rendered, drawn.target, step, self.current_epoch)
        self.budget.update(rendered.n_samples)
        self.n_samples_seen = self.n_samples_seen + rendered.n_samples
        self._log_training(report, rendered, drawn)
        self._began = began
        return report.total

    def _rendered(self, rays: Rays) -> Rendered:
        """What cameras see along rays, with what the losses of this step ask for."""
        asked = self.losses.needs(self.global_step, self.current_epoch)
        self.model.asked = asked
        rendered = self.model(rays)
        if "sparse points" in asked:
            points = self._known_points
            row = torch.randint(len(points), (self.config.points_per_step,), device=self.device)
            rendered.at_points = self.model.level(points[row])
        return rendered if self.exposure is None else self.exposure(rendered, rays, self._views("train"))

    @functools.cached_property
    def _known_points(self) -> Float[Tensor, "K 3"]:
        points = self._views("train").points
        assert points is not None
        return points.trusted(self.model.radius)

    @property
    def _rendered_quantities(self) -> frozenset[str]:
        return self.model.quantities | ({"distance"} if self.model.is_distance else frozenset())

    def on_train_batch_end(self, *args: Any) -> None:
        self.train_seconds += time.perf_counter() - self._began
        self.step.fill_(self.global_step)

    def _draw_rays(self) -> RayBatch:
        drawn = draw_rays(self._views("train", refined=False), self.model.config, self.budget.n_rays)
        if self.poses is not None:
            drawn.rays = self.poses(drawn.rays, self.global_step)
        return drawn

    def _backdrop(self) -> Float[Tensor, "3"]:
        return backdrop(self.model.config, self.device)

    def _log_training(self, report: LossReport, rendered: Rendered, drawn: RayBatch) -> None:
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % every:
            return
        if not torch.isfinite(report.total):
            raise ConfigError(
                f"the loss is {report.total.item()} at step {self.global_step}; lower system.optimizer.args.lr, or "
                "resume from an earlier checkpoint with a lower rate"
            )
        self.log_dict(logged(report, rendered, len(drawn.rays)) | {"train/minutes": self.train_seconds / 60})
        self.log_dict(shown(report, rendered, len(drawn.rays)), prog_bar=True)
        if self.model.config.output_rasterized_mc and self.trainer.is_global_zero:
            size = self._views("train").size(int(drawn.rays.view[0]))
            save_image(self._folder() / "preview.png", preview(rendered, drawn, *size))

    def validation_step(self, index: Tensor, batch_idx: int) -> None:
        row = int(index)
        save_image(self._folder() / f"it{self.step.item()}-{row}.png", self._evaluate("val", row))

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def test_step(self, index: Tensor, batch_idx: int) -> None:
        # The frames of a camera path follow the photographs.
        row, n_photographs = int(index), len(self._views("test"))
        split, row = ("test", row) if row < n_photographs else ("path", row - n_photographs)
        save_image(self._frame_path(split, row), self._evaluate(split, row))

    def on_test_epoch_end(self) -> None:
        scores = self._log_scores("test")
        if not self.trainer.is_global_zero:
            return
        folder, stem, views = self._folder(), f"it{self.step.item()}", self._views("test")
        frames = [place for place in scores if place[0] == "path"] or list(scores)
        video = write_video([self._frame_path(*place) for place in frames], folder / f"{stem}-test.mp4")
        written = [video, *self.export(self.trainer.datamodule, views)]  # type: ignore[attr-defined]
        if views.is_real:
            written.append(self._write_cameras("test"))
        result = summary(scores, "test")
        path = write_metrics(folder.parent, {"step": self.step.item(), "test": result, "training": self._training()})
        if "psnr" in result:
            print(told(result))
        print("\n".join(str(path.resolve()) for path in [*written, path]))

    def predict_step(self, index: Tensor, batch_idx: int) -> None:
        row = int(index)
        save_image(self._frame_path("predict", row), self._evaluate("train", row))

    def _evaluate(self, split: str, row: int) -> Picture:
        """The panel of one view, whose scores are kept."""
        self.model.update(int(self.step.item()), self.experiment.seed)
        views, backdrop = self._views(split), self._backdrop()
        scores, panel = evaluate(self.model, views, row, backdrop, self.metrics, self._tell_share)
        self._scores[split, row] = scores
        return panel

    def _tell_share(self, share: float) -> None:
        """Moves the progress of evaluation on by a part of a view: deep networks take minutes for one."""
        line = self.trainer.progress_bar_callback
        if isinstance(line, ProgressLine):
            line.within(self.trainer, self, share)

    def _log_scores(self, split: str) -> Scores:
        """Logs the means of a split; returns the scores that all devices have kept, which are forgotten."""
        scores, self._scores = gathered(self._scores, self.trainer.world_size), {}
        means = mean_scores(scores, split).items()
        values = {f"{split}/{name}": value for name, value in means if value is not None}
        values[f"{split}/minutes"] = self.train_seconds / 60
        self.log_dict(values, prog_bar=split == "val", rank_zero_only=True)
        return scores

    def export(self, data: SceneData, test: Views | None = None) -> list[Path]:
        """Meshes the model, writes the files and measures what can be measured.

        Args:
            data: is read where the options ask for the training cameras or photographs; then the test views are, too.
            test: views to measure against, by their true surface and their photographs.

        Returns:
            Paths of what was written.
        """
        self.model.eval()
        self.model.update(int(self.step.item()), self.experiment.seed)
        folder, stem = self._folder(), f"it{self.step.item()}"
        options = self.experiment.export
        shows_photographs = options.texture_source == "photographs" and options.texture_size > 0
        views = self._refined(data.views("train")) if options.drop_unseen or shows_photographs else None
        if shows_photographs:
            test = test or data.views("test")
        result = export_surface(self.model, options, folder, stem, self.to_dataset, views)
        restate_cameras(folder / CAMERAS, options.coordinates)
        if result is None:
            write_metrics(folder.parent, dict.fromkeys(("mesh", "geometry", "capture", "texture")))
            return []
        scores = {} if test is None else mesh_scores(result, test, self._backdrop())
        write_metrics(folder.parent, {"mesh": result.mesh, "texture": result.texture} | scores)
        return result.paths

    def _write_cameras(self, split: str) -> Path:
        coordinates, views = self.experiment.export.coordinates, self._views(split)
        return write_cameras(self._folder() / CAMERAS, split, views, coordinates, self.to_dataset)

    def _training(self) -> dict[str, Any]:
        minutes = self.train_seconds / 60
        rates = {"samples_per_second": int(self.n_samples_seen), "steps_per_second": int(self.step.item())}
        seconds = self.train_seconds or math.inf
        return {"minutes": minutes} | {name: count / seconds for name, count in rates.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_seconds"], checkpoint["n_samples_seen"] = self.train_seconds, int(self.n_samples_seen)
        checkpoint["to_dataset"] = self.to_dataset
        checkpoint["late_counts"] = {name: counts.state() for name, counts in self._late_counts()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.train_seconds = checkpoint.get("train_seconds", 0.0)
        self.n_samples_seen = checkpoint.get("n_samples_seen", 0)
        self.to_dataset = checkpoint.get("to_dataset", self.to_dataset)
        saved = checkpoint.get("late_counts", {})
        for name, counts in self._late_counts():
            if name in saved:
                counts.restore(saved[name])

    def load_model_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes the model's weights and grids from a checkpoint and nothing else: a new run begins at step 0.

        What was learnt about single photographs stays behind, with a notice: the new run may have others.
        """
        saved = checkpoint["state_dict"]
        self.model.load_state_dict({key[6:]: value for key, value in saved.items() if key.startswith("model.")})
        if left := sorted({key.split(".")[0] for key in saved} & {"poses", "exposure"}):
            notice(f"--resume_weights_only takes the model alone: {' and '.join(left)} of the photographs begin anew")

    def _late_counts(self) -> Iterator[tuple[str, LateCounts]]:
        return ((name, part) for name, part in self.named_modules() if isinstance(part, LateCounts))

    def _views(self, split: str, refined: bool = True) -> Views:
        views: Views = self.trainer.datamodule.views(split)  # type: ignore[attr-defined]
        if views.scene_names is not None:
            self.model.know_scenes(views.scene_names)
        return self._refined(views) if refined and split == "train" else views

    def _refined(self, views: Views) -> Views:
        """Training views with the cameras that were learnt."""
        if self.poses is None:
            return views
        self.poses.attach(views)
        return self.poses.refined(views)

    def _folder(self) -> Path:
        return Path(self.experiment.save_dir)

    def _frame_path(self, kind: str, row: int) -> Path:
        return self._folder() / f"it{self.step.item()}-{kind}" / f"{row}.png"
