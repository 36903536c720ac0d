"""Laws of images between their pixels."""

import pytest
import torch

from utils.bilinear import bilinear


@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 4, 1), (4, 1, 3), (1, 1, 2)])
def test_centres_of_pixels_have_their_values(shape):
    image = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    place = torch.stack([columns, rows], dim=-1).view(-1, 2) + 0.5
    torch.testing.assert_close(bilinear(image, place), image.view(-1, shape[2]) / 255)


def test_between_pixels_it_is_what_torch_computes_and_beyond_the_border_the_value_there():
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (6, 9, 3), generator=generator, dtype=torch.uint8)
    place = torch.rand(500, 2, generator=generator) * torch.tensor([13.0, 10.0]) - 2
    reference = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None] / 255,
        (2 * place / torch.tensor([9.0, 6.0]) - 1)[None, None],
        align_corners=False,
        padding_mode="border",
    )
    torch.testing.assert_close(bilinear(image, place), reference[0, :, 0].T, atol=1e-5, rtol=0)


def test_no_place_gives_no_value():
    assert bilinear(torch.zeros(2, 2, 3, dtype=torch.uint8), torch.zeros(0, 2)).shape == (0, 3)
