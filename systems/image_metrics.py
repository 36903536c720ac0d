"""How close a rendered picture is to a photograph."""

import torch
from jaxtyping import Float
from torch import Tensor

from systems import metrics


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
