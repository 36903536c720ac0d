import math
from pathlib import Path

import pytest
import torch

from systems.image_metrics import chosen_metrics
from tests.systems.test_lpips import write
from utils.registry import ConfigError


def test_psnr_is_that_of_the_mean_squared_error():
    truth = torch.zeros(8, 8, 3)
    assert chosen_metrics({})["psnr"](truth + 0.1, truth) == pytest.approx(20.0)
    assert chosen_metrics({})["psnr"](truth + 2.0, truth) == pytest.approx(-10 * math.log10(4))  # not clipped


def test_ssim_is_one_for_equal_pictures_and_less_for_others():
    picture = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    ssim = chosen_metrics({})["ssim"]
    assert ssim(picture, picture) == pytest.approx(1.0, abs=1e-5)
    assert ssim(picture.flip(0), picture) < 0.2


def test_lpips_is_computed_only_where_weights_are_given(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    image, truth = torch.rand(2, 40, 40, 3, generator=generator)
    assert chosen_metrics({})["lpips"](image, truth) is None
    weights, heads = write(tmp_path, "alex")
    options = {"net": "alex", "weights": str(weights), "heads": str(heads)}
    value = chosen_metrics({"lpips": options})["lpips"](image, truth)
    assert value is not None and 0 < value < 100


@pytest.mark.parametrize(
    "options, said",
    [
        ({"lpisp": {}}, r"metrics.lpisp: unknown metric \(did you mean 'lpips'\?\)"),
        ({"lpips": {"weight": "a.pth"}}, r"metrics.lpips.weight: unknown argument \(did you mean 'weights'\?\)"),
        ({"lpips": {"net": "resnet"}}, "metrics.lpips.net is 'resnet', expected"),
        ({"lpips": {"weights": "nowhere.pth"}}, "metrics.lpips.weights: nowhere.pth does not exist"),
        ({"psnr": {"image": 1}}, "metrics.psnr.image: unknown argument"),
    ],
)
def test_a_mistake_in_the_options_is_told_before_anything_is_computed(options: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        chosen_metrics(options)
