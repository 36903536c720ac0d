import pytest
import torch

from datasets.cameras import Cameras
from datasets.synthetic import look_at_origin
from datasets.views import Views, pixel_offsets
from systems.mask_culling import within_masks
from tests.moved import TO_DATASET
from utils.registry import ConfigError
from utils.similarity import carried
from utils.types import Mesh

SIZE = 40


def views(mask: torch.Tensor | None, to_dataset: torch.Tensor | None = None) -> Views:
    """Two cameras on the x and the y axis, 4 away; a pixel is 0.1 wide at the origin. Both have the same mask."""
    shape = (2, 2)
    cameras = Cameras(
        look_at_origin(torch.tensor([[4.0, 0, 0], [0, 4.0, 0]])),
        torch.full(shape, 40.0),
        torch.full(shape, SIZE / 2),
        torch.full(shape, SIZE),
    )
    alpha = None if mask is None else mask.flatten().repeat(2)
    return Views(cameras, ["x", "y"], pixel_offsets(cameras.size), None, alpha, to_dataset=to_dataset)


def middle() -> torch.Tensor:
    """Masks of the 20 x 20 pixels around the middle: what is within 1 of the line of sight."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    mask[10:30, 10:30] = 255
    return mask


def triangles(*places: tuple[float, float, float]) -> Mesh:
    corner = torch.tensor([[0.0, 0, 0], [0.01, 0, 0], [0, 0.01, 0]]).double()
    vertices = torch.cat([corner + torch.tensor(place) for place in places])
    return Mesh(vertices, torch.arange(len(vertices)).view(-1, 3))


INSIDE, BESIDE, NEAR = (0.0, 0.0, 0.5), (0.0, 0.0, 1.5), (0.0, 0.0, 1.15)
OUT_OF_IMAGE = (0.0, 0.0, 5.0)
ONE_VIEW = (0.0, 1.5, 0.0)
"""The camera on the x axis sees it outside of its mask, that on the y axis inside."""


def test_faces_inside_all_masks_or_outside_of_the_images_are_kept():
    mesh = triangles(INSIDE, BESIDE, OUT_OF_IMAGE, ONE_VIEW)
    kept = within_masks(mesh, views(middle()), 0)
    assert torch.equal(kept.vertices[kept.faces], mesh.vertices[mesh.faces[[0, 2]]])
    assert len(kept.vertices) == 6  # corners that no face needs are gone, because they would be scored


def test_masks_are_widened_by_pixels():
    mesh = triangles(NEAR)  # in the second pixel beside the mask
    for margin, is_kept in ((1.0, False), (2.0, True)):
        if is_kept:
            assert len(within_masks(mesh, views(middle()), margin).faces) == 1
        else:
            with pytest.raises(ConfigError, match="--cull 1 leaves nothing of the mesh"):
                within_masks(mesh, views(middle()), margin)


def test_meshes_are_in_the_coordinates_of_the_data_set():
    mesh = triangles(INSIDE, BESIDE)
    there = Mesh(carried(mesh.vertices, TO_DATASET), mesh.faces)
    assert len(within_masks(there, views(middle(), TO_DATASET), 0).faces) == 1


def test_without_masks_nothing_can_be_culled():
    with pytest.raises(ConfigError, match="--cull needs masks"):
        within_masks(triangles(INSIDE), views(None), 0)
