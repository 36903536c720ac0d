"""How close a rendered picture is to a photograph: pure functions of both, options as keyword arguments.

A metric that is not computed, because something it needs was not given, is None.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from systems import metrics
from systems.lpips import Net, load_lpips
from utils.registry import ConfigError, nearest
from utils.signature import check_arguments

Metric = Callable[[Float[Tensor, "H W 3"], Float[Tensor, "H W 3"]], float | None]
PICTURES = ("image", "truth")


@metrics.register("psnr")
def psnr(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> float:
    """Peak signal-to-noise ratio in dB over the whole image, from floats in [0, 1]; the render is not clipped."""
    return -10 * torch.log10((image - truth).square().mean().clamp_min(1e-10)).item()


@metrics.register("ssim")
def ssim(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> float:
    """Structural similarity with an 11x11 Gaussian window of sigma 1.5 (Wang et al. 2004)."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    batch = [picture.permute(2, 0, 1)[None] for picture in (image.clamp(0, 1), truth)]  # [1, 3, H, W]
    value = structural_similarity_index_measure(batch[0], batch[1], data_range=1.0)
    assert isinstance(value, Tensor)
    return value.item()


@metrics.register("lpips")
@torch.no_grad()
def lpips(
    image: Float[Tensor, "H W 3"],
    truth: Float[Tensor, "H W 3"],
    net: Net = "alex",
    weights: str | None = None,
    heads: str | None = None,
) -> float | None:
    """Perceptual distance (Zhang et al. 2018); only where the file `weights` with torchvision's AlexNet (`net: alex`)
    or VGG16 (`net: vgg`) is given; `heads` is LPIPS's own file, null that in torchmetrics."""
    if weights is None:
        return None
    network = load_lpips(net, Path(weights), None if heads is None else Path(heads)).to(image.device)
    return network(image.clamp(0, 1), truth).item()


def chosen_metrics(options: dict[str, dict[str, Any]]) -> dict[str, Metric]:
    """Every registered metric by name, with the options of the section `metrics`.

    Metrics with options are tried on a small picture, so that a mistake is told before anything is trained.

    Raises:
        ConfigError: an unknown metric, or an option that it does not take.
    """
    chosen: dict[str, Metric] = {name: metrics.get(name) for name in metrics.names()}
    for name, given in options.items():
        if name not in chosen:
            raise ConfigError(
                f"metrics.{name}: unknown metric{nearest(name, list(chosen))}; known: {', '.join(chosen)}"
            )
        arguments = check_arguments(chosen[name], dict(given), f"metrics.{name}", reserved=PICTURES)
        chosen[name] = partial(chosen[name], **arguments)
        chosen[name](torch.zeros(64, 64, 3), torch.zeros(64, 64, 3))
    return chosen
