"""LPIPS with random weights in the published layout against its formula, written out with loops over layers."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from systems.lpips import load_lpips
from utils.registry import ConfigError

ALEXNET = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
"""torchvision's rows of `features`: channels out and in, side of the kernel."""
VGG16 = {
    **{0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)},
    **{17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)},
}
CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


def trunk(net: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ALEXNET if net == "alex" else {row: (*shape, 3) for row, shape in VGG16.items()}
    saved = {}
    for row, (n_out, n_in, side) in shapes.items():
        scale = (2 / (n_in * side**2)) ** 0.5
        saved[f"features.{row}.weight"] = scale * torch.randn(n_out, n_in, side, side, generator=generator)
        saved[f"features.{row}.bias"] = 0.1 * torch.randn(n_out, generator=generator)
    return saved | {"classifier.1.weight": torch.zeros(2, 2)}


def heads(net: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        f"lin{row}.model.1.weight": torch.rand(1, n, 1, 1, generator=generator) for row, n in enumerate(CHANNELS[net])
    }


def write(folder: Path, net: str) -> tuple[Path, Path]:
    paths = folder / "trunk.pth", folder / "heads.pth"
    for path, saved in zip(paths, (trunk(net), heads(net)), strict=True):
        torch.save(saved, path)
    return paths


def features(net: str, saved: dict[str, Tensor], picture: Tensor) -> list[Tensor]:
    """[C, h, w] features of the five layers of one picture [3, H, W] in [-1, 1]."""
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    value = ((picture - mean[:, None, None]) / deviation[:, None, None])[None]

    def convolved(row: int, stride: int, padding: int) -> Tensor:
        return F.conv2d(value, saved[f"features.{row}.weight"], saved[f"features.{row}.bias"], stride, padding).relu()

    found = []
    if net == "alex":
        for row, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            value = F.max_pool2d(value, 3, 2) if row in (3, 6) else value
            value = convolved(row, stride, padding)
            found.append(value[0])
        return found
    for block in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
        value = F.max_pool2d(value, 2, 2) if block[0] else value
        for row in block:
            value = convolved(row, 1, 1)
        found.append(value[0])
    return found


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_distance_is_that_of_the_formula(tmp_path: Path, net: str):
    generator = torch.Generator().manual_seed(2)
    image, truth = torch.rand(2, 50, 37, 3, generator=generator)
    expected = torch.zeros(())
    pictures = [2 * picture.permute(2, 0, 1) - 1 for picture in (image, truth)]
    pairs = zip(*(features(net, trunk(net), picture) for picture in pictures), strict=True)
    for (a, b), head in zip(pairs, heads(net).values(), strict=True):
        a, b = (one / one.square().sum(dim=0).sqrt().clamp_min(1e-10) for one in (a, b))
        expected = expected + torch.einsum("chw,c->hw", (a - b) ** 2, head[0, :, 0, 0]).mean()
    network = load_lpips(net, *write(tmp_path, net))  # type: ignore[arg-type]
    torch.testing.assert_close(network(image, truth), expected, rtol=1e-4, atol=1e-6)
    assert expected > 0.01 and network(image, image) == 0


def test_heads_come_with_torchmetrics(tmp_path: Path):
    weights, given = write(tmp_path, "alex")
    shipped, own = load_lpips("alex", weights), load_lpips("alex", weights, given)
    # Trained heads are not negative, and not the random ones.
    assert all((head >= 0).all() and head.max() > 0 for head in shipped.heads)
    assert not torch.equal(shipped.heads[0], own.heads[0])


def error_of(weights: Path, *rest: Path, net: str = "alex") -> str:
    with pytest.raises(ConfigError) as caught:
        load_lpips(net, weights, *rest)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_hold_something_else_are_named(tmp_path: Path):
    weights, given = write(tmp_path, "alex")
    missing = tmp_path / "none.pth"
    assert error_of(missing) == (
        f"metrics.lpips.weights: {missing} does not exist; expected the state dict of torchvision's AlexNet"
    )
    assert "metrics.lpips.weights" in error_of(given) and "holds no 'features.0.weight'" in error_of(given)
    assert "metrics.lpips.heads" in error_of(weights, weights) and "LPIPS's alex.pth" in error_of(weights, weights)
    assert error_of(weights, net="vgg").endswith(
        "no 'features.2.weight'; expected the state dict of torchvision's VGG16"
    )
    torch.save(trunk("alex") | {"features.3.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    said = error_of(tmp_path / "other.pth")
    assert "features.3.weight in" in said and "is [2, 2], expected [192, 64, 5, 5]" in said
    (tmp_path / "text.pth").write_text("text")
    assert "is no state dict" in error_of(tmp_path / "text.pth")


def test_a_picture_that_is_too_small_is_told(tmp_path: Path):
    network = load_lpips("alex", *write(tmp_path, "alex"))
    with pytest.raises(ConfigError, match="a picture has 40x20 pixels; expected 32 a side or more"):
        network(torch.zeros(20, 40, 3), torch.zeros(20, 40, 3))
