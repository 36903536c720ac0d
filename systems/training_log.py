"""The numbers of a training step that people look at."""

from typing import Any

import torch

from systems.loss_functions import LossReport
from utils.types import Rendered


def logged(report: LossReport, rendered: Rendered, n_rays: int) -> dict[str, Any]:
    """What goes to the log alone: losses, weights that follow a schedule, and how samples are spent."""
    values: dict[str, Any] = {f"train/loss_{name}": term.detach() for name, term in report.terms.items()}
    values |= {f"train_params/lambda_{name}": weight for name, weight in report.weights.items()}
    values |= {"train/loss": report.total.detach(), "train/samples_per_ray": rendered.n_samples / n_rays}
    if rendered.is_whole is not None:
        values["train/rays_without_room"] = 1 - rendered.is_whole.float().mean()
    return values


def shown(report: LossReport, rendered: Rendered, n_rays: int) -> dict[str, Any]:
    """What the progress line shows, too: rays, sharpness of the surface, PSNR in dB."""
    values: dict[str, Any] = {"train/num_rays": float(n_rays)}
    if rendered.sharpness is not None:
        values["train/inv_s"] = rendered.sharpness.detach()
    if "rgb" in report.terms or "rgb_mse" in report.terms:
        error = report.terms["rgb_mse"] if "rgb_mse" in report.terms else 2 * report.terms["rgb"]
        values["train/psnr"] = -10 * torch.log10(error.detach())
    return values
