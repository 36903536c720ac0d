"""Perceptual distance of two pictures: LPIPS 0.1 (Zhang et al. 2018), its networks in plain torch.

A trunk trained to classify photographs sees both pictures. The squared differences of its features, which have unit
length in every place, are weighted per channel by a head per layer, averaged over places and summed over layers. The
numbers are in files that this program neither ships nor fetches:

* the trunk as torchvision publishes it, `alexnet-owt-7be5be79.pth` or `vgg16-397923af.pth`: a state dict with
  `features.<n>.weight` and `.bias`; what else it holds is not read;
* the heads as LPIPS publishes them, `weights/v0.1/alex.pth` or `vgg.pth`, which torchmetrics has in its package:
  `lin<layer>.model.1.weight`, [1, channels, 1, 1].
"""

import functools
import importlib.util
import itertools
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.registry import ConfigError

Net = Literal["alex", "vgg"]

TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""Layers whose features are compared."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation, of colours in [-1, 1], that LPIPS was calibrated with."""
SMALLEST = 32
"""Pixels a side."""


class Lpips(nn.Module):
    """LPIPS with numbers still to be loaded.

    Args:
        net: architecture of the trunk.
    """

    def __init__(self, net: Net):
        super().__init__()
        self.features = _alexnet() if net == "alex" else _vgg16()
        self.taps = TAPS[net]
        channels = [int(self.features[tap - 1].out_channels) for tap in self.taps]  # type: ignore[arg-type]
        self.heads = nn.ParameterList([torch.zeros(1, n, 1, 1) for n in channels])

    def forward(self, image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> Float[Tensor, ""]:
        """The distance of two pictures with colours in [0, 1].

        Raises:
            ConfigError: they are so small that a trunk leaves nothing of them.
        """
        if min(image.shape[:2]) < SMALLEST:
            width, height = image.shape[1], image.shape[0]
            raise ConfigError(
                f"metrics.lpips: a picture has {width}x{height} pixels; expected {SMALLEST} a side or more"
            )
        value = 2 * torch.stack([image, truth]).permute(0, 3, 1, 2) - 1  # [2, 3, H, W]
        shift, scale = (value.new_tensor(numbers)[:, None, None] for numbers in (SHIFT, SCALE))
        value, total, heads = (value - shift) / scale, value.new_zeros(()), iter(self.heads)
        for row, layer in enumerate(self.features):
            value = layer(value)
            if row in self.taps:
                unit = value / (value.norm(dim=1, keepdim=True) + 1e-10)
                difference = (unit[0] - unit[1]).square()[None]
                total = total + nn.functional.conv2d(difference, next(heads)).mean()
        return total


@functools.cache
def load_lpips(net: Net, weights: Path, heads: Path | None = None) -> Lpips:
    """LPIPS, ready to compare.

    Args:
        net: architecture of the trunk.
        weights: file of the trunk.
        heads: file of the heads; None takes those in torchmetrics.

    Raises:
        ConfigError: a file is missing, or holds something else.
    """
    network = Lpips(net)
    trunk = {f"features.{name}": value for name, value in network.features.named_parameters()}
    _fill(trunk, weights, "metrics.lpips.weights", f"torchvision's {'AlexNet' if net == 'alex' else 'VGG16'}")
    _fill(
        {f"lin{row}.model.1.weight": head for row, head in enumerate(network.heads)},
        _shipped_heads(net) if heads is None else heads,
        "metrics.lpips.heads",
        f"LPIPS's {net}.pth",
    )
    return network.requires_grad_(False)


def _fill(parameters: dict[str, nn.Parameter], path: Path, key: str, expected: str) -> None:
    """Copies numbers of a state dict into the parameters of those names."""
    if not path.is_file():
        raise ConfigError(f"{key}: {path} does not exist; expected the state dict of {expected}")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: saved[name] for name in parameters}
    except KeyError as error:
        raise ConfigError(f"{key}: {path} holds no {error}; expected the state dict of {expected}") from error
    except Exception as error:  # torch.load raises whatever its formats need
        raise ConfigError(f"{key}: {path} is no state dict ({str(error).splitlines()[0]})") from error
    for name, parameter in parameters.items():
        if found[name].shape != parameter.shape:
            shapes = f"{list(found[name].shape)}, expected {list(parameter.shape)}"
            raise ConfigError(f"{key}: {name} in {path} is {shapes} as in {expected}; check metrics.lpips.net")
        parameter.data.copy_(found[name])


def _shipped_heads(net: Net) -> Path:
    package = importlib.util.find_spec("torchmetrics")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "functional" / "image" / "lpips_models" / f"{net}.pth"


def _alexnet() -> nn.Sequential:
    """The features of AlexNet (Krizhevsky 2014)."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )


def _vgg16() -> nn.Sequential:
    """The features of VGG16 (Simonyan and Zisserman 2015) up to the last convolution."""
    layers: list[nn.Module] = []
    n_before = 3
    for n_channels, n_convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers += [nn.MaxPool2d(2)] if layers else []
        for n_in, n_out in itertools.pairwise([n_before, *[n_channels] * n_convolutions]):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
        n_before = n_channels
    return nn.Sequential(*layers)
