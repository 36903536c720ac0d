import pytest
import torch

from datasets import knot, studio
from datasets.synthetic import DISTANCE, Synthetic, look_at_origin, spiral
from datasets.views import Views

BLACK = torch.zeros(3)


def render(split: str = "train", **options: int) -> Views:
    config = {"n_train_views": 6, "n_test_views": 2, "size": 32, "samples_per_pixel": 4, **options}
    return Synthetic(Synthetic.Config(**config)).views(split)


@pytest.fixture(scope="module")
def views() -> Views:
    return render(size=64)


def test_depths_end_on_the_surface_and_normals_stand_on_it(views: Views):
    for index in range(len(views)):
        batch = views.image(index, BLACK)
        is_hit = batch.target.depth > 0
        points = (batch.rays.origins + batch.target.depth[:, None] * batch.rays.directions)[is_hit].double().T
        assert knot.signed_distance(points).abs().median() < 1e-5
        assert knot.signed_distance(points).abs().max() < 1e-3
        expected = torch.nn.functional.normalize(knot.gradient(points, knot.rope_coordinates(points)), dim=0).T
        error = (batch.target.normal[is_hit].double() - expected).norm(dim=-1)
        assert error.median() < 1e-3 and error.max() < 0.2
        # What is seen faces the camera, but for a ray that grazes a bump.
        slope = (batch.target.normal * batch.rays.directions).sum(-1)[is_hit]
        assert (slope < 0).float().mean() > 0.998 and slope.max() < 0.2
        assert (batch.target.normal[~is_hit] == 0).all()


def test_nothing_stands_before_the_depth_or_in_a_ray_that_misses(views: Views):
    batch = views.image(0, BLACK)
    depth = batch.target.depth
    end = torch.where(depth > 0, depth, DISTANCE + knot.RADIUS)
    t = torch.linspace(DISTANCE - knot.RADIUS, DISTANCE + knot.RADIUS, 1000)[:, None]
    points = batch.rays.origins[:, :, None] + batch.rays.directions[:, :, None] * t.T
    value = knot.signed_distance(points.permute(1, 0, 2).reshape(3, -1)).view(len(depth), -1)
    is_before = t.T < end[:, None] - 0.01
    # The tracer's shortest step may skip bumps that are thinner; their tips are lower than this.
    assert value[is_before].min() > -5e-4


def test_masks_are_full_inside_and_empty_outside(views: Views):
    batch = views.image(0, BLACK)
    is_hit = (batch.target.depth > 0).view(64, 64)
    around = is_hit.unfold(0, 3, 1).unfold(1, 3, 1).flatten(2)  # [62, 62, 9]
    mask = batch.target.mask.view(64, 64)[1:-1, 1:-1]
    assert (mask[~around.any(-1)] == 0).all()
    assert (mask[around.all(-1)] > 0.99).float().mean() > 0.98
    share = batch.target.mask.mean() - is_hit.float().mean()
    assert share.abs() < 0.01


def test_colours_are_straight_so_edges_are_not_dark(views: Views):
    alpha = views.alpha.float()
    edge, inside = (alpha > 0) & (alpha < 128), alpha == 255
    assert views.color[edge].float().mean() > 0.7 * views.color[inside].float().mean()


def test_the_object_covers_a_third_of_the_default_images():
    # A quarter of them, smaller: directions and fields of view are the same.
    alpha = render(n_train_views=16, n_test_views=4, size=50, samples_per_pixel=1).alpha
    assert alpha.view(16, -1).float().mean(1).min() / 255 > 0.3


def test_the_highlight_moves_with_the_viewer():
    points = knot.surface_point(torch.linspace(0, 18, 2000), torch.linspace(0, 200, 2000))
    from_left, from_above = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[0.0], [0.0], [-1.0]])
    difference = studio.shade(points, from_left.expand_as(points)) - studio.shade(points, from_above.expand_as(points))
    assert 0.1 < difference.abs().max() <= 0.31


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    first, again, other = render(), render(), render(seed=1)
    assert torch.equal(first.color, again.color) and torch.equal(first.alpha, again.alpha)
    assert torch.equal(first.cameras.pose, again.cameras.pose)
    assert not torch.equal(first.color, other.color)


def test_held_out_views_serve_validation_and_test_but_never_training():
    val, test, train = render("val"), render("test"), render("train")
    assert torch.equal(val.color, test.color) and len(val) == 2 and len(train) == 6
    gap = torch.cdist(val.cameras.pose[:, :, 3], train.cameras.pose[:, :, 3]).min()
    assert gap > 0.5
    assert len(set(train.names)) == 6


def test_every_number_of_views_is_held_out_as_asked():
    for n_train, n_test in ((1, 1), (2, 5), (64, 16), (7, 3)):
        reader = Synthetic(Synthetic.Config(n_train_views=n_train, n_test_views=n_test))
        assert len(reader._cameras("train")) == n_train and len(reader._cameras("test")) == n_test


def test_cameras_stand_upright_around_the_object_and_look_at_it():
    pose = look_at_origin(4 * spiral(50, 0))
    rotation, position = pose[:, :, :3], pose[:, :, 3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50))
    torch.testing.assert_close(-rotation[:, :, 2] * 4, -position)
    assert (rotation[:, 2, 0].abs() < 1e-6).all() and (rotation[:, 2, 1] > 0).all()
    assert position.mean(0).norm() < 0.1


def test_threads_of_torch_are_as_before():
    n_threads = torch.get_num_threads()
    render(size=8)
    assert torch.get_num_threads() == n_threads


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"samples_per_pixel": 10}, "samples_per_pixel = 10; expected a square such as 4, 9 or 16"),
        ({"size": 0}, "size = 0; expected at least 1"),
        ({"n_test_views": -1}, "n_test_views = -1; expected at least 1"),
    ],
)
def test_impossible_options_are_refused(options: dict, expected: str):
    with pytest.raises(ValueError, match=expected):
        Synthetic.Config(**options)
