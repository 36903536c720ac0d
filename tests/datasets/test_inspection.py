"""What is measured on scenes that are known by construction, and what is said about those that are broken."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from datasets.cameras import Cameras
from datasets.inspection import Inspection, inspect_scene
from datasets.inspection_report import table, warnings
from datasets.points import SparsePoints
from datasets.synthetic import look_at_origin, spiral
from datasets.views import Views, pixel_offsets

N, SIZE, FOCAL = 12, 32, 40.0


def views_from(pose: torch.Tensor, alpha: torch.Tensor | None = None, **options) -> Views:
    """Grey photographs of SIZE x SIZE pixels by pinholes at the given poses."""
    n = len(pose)
    size = torch.full((n, 2), SIZE)
    cameras = Cameras(pose, torch.full((n, 2), FOCAL), torch.full((n, 2), SIZE / 2), size)
    color = torch.full((n * SIZE * SIZE, 3), 128, dtype=torch.uint8)
    return Views(cameras, [f"photo {row}" for row in range(n)], pixel_offsets(size), color, alpha, **options)


def disc(radius: float) -> torch.Tensor:
    """[SIZE * SIZE] mask of a disc of this radius, in pixels, in the middle of the image."""
    place = torch.arange(SIZE) + 0.5 - SIZE / 2
    return ((place[:, None] ** 2 + place**2 <= radius**2) * 255).to(torch.uint8).flatten()


def ball_views(**options) -> Views:
    """A ball of radius 1 seen with masks from distance 4."""
    # The outline of the ball is seen at the angle asin(1/4).
    radius = FOCAL * np.tan(np.arcsin(1 / 4))
    return views_from(look_at_origin(4 * spiral(N, 0)), disc(radius).repeat(N), **options)


def inspected(views: Views, radius: float = 1.2, learned_background: bool = False) -> Inspection:
    return inspect_scene({"train": views}, radius, learned_background)


def cloud(views: Views, shift: float) -> SparsePoints:
    """Points in a ball of radius 1, observed by all cameras, `shift` pixels to the right of where they are seen."""
    generator = torch.Generator().manual_seed(3)
    position = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator), dim=-1)
    view, point = torch.cartesian_prod(torch.arange(len(views)), torch.arange(40)).unbind(-1)
    matrix = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    pixels = []
    for pose in views.cameras.pose.double().numpy():
        turn = np.diag([1.0, -1, -1]) @ pose[:, :3].T  # world to OpenCV's camera frame
        seen, _ = cv2.projectPoints(position.double().numpy(), cv2.Rodrigues(turn)[0], -turn @ pose[:, 3], matrix, None)
        pixels.append(seen[:, 0] + [shift, 0])
    return SparsePoints(position, None, None, view, point, torch.from_numpy(np.concatenate(pixels)).float())


def test_the_region_of_interest_is_that_of_the_masks() -> None:
    scene = inspected(ball_views())
    assert scene.center.norm() < 0.15 and scene.reach == pytest.approx(1, abs=0.25)


def test_rays_meet_the_box_where_they_meet_its_nearest_face() -> None:
    pose = torch.eye(3, 4)[None].clone()
    pose[0, 2, 3] = 4.0
    scene = inspected(views_from(pose), radius=1.0)
    # The face is 3 away; of 16 pixels from border to border, those count that are within a third of the focal length.
    pixel = np.round(np.linspace(0, SIZE - 1, 16)) + 0.5
    share = (np.abs(pixel - SIZE / 2) / FOCAL <= 1 / 3).mean()
    assert 0 < share < 1 and scene.share_met == pytest.approx(share**2)


def test_reprojection_agrees_with_opencv() -> None:
    views = ball_views()
    scene = inspected(replace(views, points=cloud(views, 3.0)))
    torch.testing.assert_close(scene.residual, torch.full((N * 40,), 3.0), atol=1e-3, rtol=0)


def test_coverage_is_the_mean_of_the_mask() -> None:
    alpha = disc(8).repeat(N)
    alpha[: SIZE * SIZE] = 0
    coverage = inspected(views_from(look_at_origin(4 * spiral(N, 0)), alpha)).coverage
    assert coverage is not None
    torch.testing.assert_close(coverage[:2], torch.tensor([0, (disc(8) > 0).float().mean()]))


def test_the_bend_of_a_lens_is_that_of_opencv_at_the_corners() -> None:
    views = replace(ball_views(), alpha=None)
    distortion = torch.tensor([0.1, 0, 0, 0, 0, 0, 0, 0]).repeat(N, 1)
    scene = inspected(replace(views, cameras=replace(views.cameras, distortion=distortion)))
    matrix = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    straight = cv2.undistortPoints(np.array([[[0.5, 0.5]]]), matrix, np.array([0.1, 0, 0, 0]), P=matrix)
    assert scene.bend == pytest.approx(np.linalg.norm(straight - 0.5), rel=1e-3)
    assert inspected(views).bend == 0


def test_a_sound_scene_gives_no_warning_and_its_table_names_everything() -> None:
    views = ball_views()
    views = replace(views, points=cloud(views, 0.0), to_dataset=torch.diag(torch.tensor([8.0, 8, 8, 1])).double())
    path = Views(views.cameras, views.names, views.offsets, None)
    scene = inspect_scene({"train": views, "val": views, "test": path}, 1.2, False)
    assert warnings(scene) == []
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(scene))
    said = captured.get()
    for words in (
        "12 train, 12 val (the same), 12 test (a camera path, without photographs)",
        "32 x 32 px",
        "40 px; field of view 43.6° across, 43.6° upwards",
        "they hide what is around the object",
        "4 from the origin",
        "40, 100% of them in the box; 480 observations",
        "mean 0.00, median 0.00, 90 % below 0.00 px",
        "the unit is 8 of the data set's; the origin is (0, 0, 0) there",
        "half side 1.2 (model.radius); ",
    ):
        assert words in said, said


@pytest.fixture(scope="module")
def sound() -> Inspection:
    """Nothing is wrong with it."""
    return inspected(ball_views())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radius": 4.5}, ("fills 2", "set model.radius=1")),
        ({"radius": 0.6}, ("may be cut off; set model.radius=1",)),
        (
            {"inside": ["a", "b"]},
            ("2 of 12 cameras (first a) stand inside the box of half side 1.2; set model.radius=",),
        ),
        ({"averted": ["a"]}, ("1 of 12 cameras (first a) do not have the middle", "remove the photographs if")),
        ({"averted": list("abcdefghij")}, ("poses are probably of another convention than expected",)),
        ({"twins": [("a", "b")]}, ("1 pairs of cameras stand at one place", "first a and b; remove repeated")),
        ({"parallax": 0.01}, ("nothing of depth; walk around the object",)),
        ({"share_met": 0.03}, ("3.0% of the rays meet the box", "set model.radius=auto")),
        ({"coverage": None}, ("set model.learned_background to true or auto",)),
        ({"coverage": torch.ones(N)}, ("unused alpha channel", "set dataset.apply_mask=false")),
        ({"coverage": 0.5 * (torch.arange(N) != 3)}, ("1 of 12 masks (first photo 3) are empty",)),
        ({"residual": torch.tensor([0.1, 5.0, torch.inf])}, ("are 5.0 px off", "estimate the cameras again")),
    ],
)
def test_every_mistake_is_told_once_with_a_remedy(sound: Inspection, changes: dict, words: tuple[str, ...]) -> None:
    assert warnings(sound) == []
    (said,) = warnings(replace(sound, **changes))
    assert all(word in said for word in words), said


def test_a_learned_background_needs_no_masks(sound: Inspection) -> None:
    assert warnings(replace(sound, coverage=None, learned_background=True)) == []


def test_photographs_with_surroundings_need_a_learned_background(sound: Inspection) -> None:
    scene = replace(sound, splits={"train": replace(sound.train, apply_mask=False)})
    (said,) = warnings(scene)
    assert "dataset.apply_mask is false" in said
    assert warnings(replace(scene, learned_background=True)) == []


def test_mistaken_cameras_are_found() -> None:
    pose = look_at_origin(4 * spiral(N, 0))
    scene = inspected(views_from(pose), radius=4.5)
    assert len(scene.inside) == N and scene.averted == scene.twins == [] and scene.parallax > 1.5

    away = pose.clone()
    away[3] = pose[3] * torch.tensor([-1, 1, -1, 1])  # turned by half around its up axis
    assert inspected(views_from(away)).averted == ["photo 3"]

    twice = views_from(torch.cat((pose[:11], pose[:1])))
    assert inspected(twice).twins == [("photo 0", "photo 11")]
    assert any("there are 3 photographs" in line for line in warnings(inspected(views_from(pose[:3]))))


def test_cameras_of_another_convention_are_recognised() -> None:
    pose = look_at_origin(4 * spiral(N, 0)) * torch.tensor([1, -1, -1, 1])  # OpenCV's: y down, looking along +z
    said = warnings(inspected(views_from(pose, ball_views().alpha)))
    assert any("poses are probably of another convention" in line for line in said), said


def test_cameras_at_one_place_have_no_parallax() -> None:
    places = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0.2]]) + 0.01 * spiral(N, 0), dim=-1)
    assert inspected(views_from(look_at_origin(4 * places))).parallax < 0.03
