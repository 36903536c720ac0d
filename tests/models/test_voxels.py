"""Laws of voxel grids, and of the function made of them."""

import itertools
from typing import Any

import pytest
import torch

from models import models
from models.fields.decoders import MLPDecoder
from models.fields.scaffold import Scaffold
from models.fields.voxel_grids import FullGrid, VectorGrid, VectorMatrixGrid, VoxelGrid
from systems.loss_functions import LossSet
from tests.models.small import rays_of
from utils.config import parse
from utils.registry import ConfigError
from utils.schedule import Schedule
from utils.types import Target

SIDES = [5, 6, 4]
KINDS = {"full": FullGrid, "cp": VectorGrid, "vm": VectorMatrixGrid}
SMALL = {"resolution_changes": {0: [6, 6, 6]}, "extents": [3.0, 3.0, 3.0], "init_std": 1.0}


def make(kind: str, **options: Any) -> VoxelGrid:
    torch.manual_seed(0)
    config = {"resolution_changes": {0: SIDES}, "n_features": 2, **options}
    if kind == "cp":
        config["n_components"] = 3
    if kind == "vm":
        config["distribution_of_components"] = [1, 2, 3]
    return KINDS[kind](KINDS[kind].Config(**config))


def build(**options: Any) -> Any:
    """A model of a softplus density in a coarse grid."""
    torch.manual_seed(0)
    function = {
        "name": "voxel-grid",
        "voxel_grid_density": {"name": "full", **SMALL},
        "voxel_grid_color": {"name": "vm", **SMALL, "n_features": 4},
        "n_harmonic_functions_density": 0,
        "n_harmonic_functions_dir": 2,
        "decoder_density": {"name": "elementwise", "operation": "softplus"},
        "decoder_color": {"name": "mlp", "n_layers": 2, "hidden_dim": 16, "input_skips": []},
    }
    function |= options.pop("function", {})
    node = {"implicit_function": function, "ray_sampler": {"name": "adaptive", "n_pts_per_ray_training": 8}, **options}
    return models.make(parse(models.get("overfit").Config, node, "model"))


def trilinear(values: torch.Tensor, place: torch.Tensor, is_zero_beyond: bool) -> torch.Tensor:
    """Feature at a place counted in vertices, from its eight corners."""
    low, total = place.floor(), torch.zeros(len(values), dtype=values.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        vertex = low + torch.tensor(corner)
        weight = (1 - (place - vertex).abs()).prod()
        last = torch.tensor(values.shape[1:]) - 1
        if is_zero_beyond and not ((vertex >= 0) & (vertex <= last)).all():
            continue
        x, y, z = torch.minimum(vertex.clamp_min(0), last).long()
        total = total + weight * values[:, x, y, z]
    return total


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_a_feature_is_the_mean_of_eight_vertices_weighted_by_nearness(align_corners, padding):
    box = {"extents": [2.0, 1.0, 4.0], "translation": [0.5, 0.0, -1.0]}
    grid = make("full", align_corners=align_corners, padding=padding, **box)
    share = torch.rand(20, 3) * 1.2 - 0.1  # of the box, some of them beyond it
    points = (share - 0.5) * grid.extents + grid.translation
    n = torch.tensor(SIDES)
    places = share * (n - 1) if align_corners else share * n - 0.5
    if padding == "border":
        places = torch.minimum(places.clamp_min(0), n - 1.0)
    expected = torch.stack([trilinear(grid.factors["xyz"], place, padding == "zeros") for place in places])
    upstream = torch.randn(20, 2)
    (theirs,) = torch.autograd.grad((expected * upstream).sum(), grid.factors["xyz"])
    found = grid(points)
    (ours,) = torch.autograd.grad((found * upstream).sum(), grid.factors["xyz"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("kind", ["cp", "vm"])
def test_a_factored_grid_is_the_full_one_of_its_products(kind, align_corners):
    grid = make(kind, align_corners=align_corners, init_std=1.0)
    whole = make("full", align_corners=align_corners)
    values = whole.factors["xyz"] = torch.nn.Parameter(grid.dense().detach())
    points = (2.2 * torch.rand(50, 3) - 1.1).requires_grad_()
    upstream = torch.randn(50, 2)
    found, expected = grid(points), whole(points)
    torch.testing.assert_close(found, expected)
    ours, theirs = (
        torch.autograd.grad((one * upstream).sum(), points, retain_graph=True)[0] for one in (found, expected)
    )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    (of_values,) = torch.autograd.grad((expected * upstream).sum(), values)
    theirs = torch.autograd.grad((grid.dense() * of_values).sum(), grid.parameters())
    ours = torch.autograd.grad((found * upstream).sum(), grid.parameters())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_added_up_without_a_basis(kind):
    options = {} if kind == "full" else {"basis_matrix": False}
    grid = make(kind, n_features=1, **options)
    assert grid.dense().shape == (1, *SIDES) and grid.basis is None
    assert grid(torch.zeros(3, 3)).shape == (3, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finer_grid_begins_as_the_coarse_one(kind):
    # Twice the cells: every old vertex stays one.
    grid = make(kind, resolution_changes={0: SIDES, 10: [9, 11, 7]})
    points = 2 * torch.rand(50, 3) - 1
    before, replaced = grid(points), grid.follow(9)
    assert replaced == [] and grid.dense().shape == (2, *SIDES)
    assert all(a is b for a, b in zip(grid.follow(10), grid.factors.values(), strict=True))
    assert grid.dense().shape == (2, 9, 11, 7) and grid.follow(11) == []
    torch.testing.assert_close(grid(points), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cropped_grid_has_the_old_features_at_its_new_vertices(kind, align_corners):
    grid = make(kind, align_corners=align_corners, padding="border")
    low, high = torch.tensor([-0.5, -0.2, -2.0]), torch.tensor([0.3, 0.9, 0.5])
    share = [torch.arange(n) / (n - 1) if align_corners else (torch.arange(n) + 0.5) / n for n in SIDES]
    share = torch.stack(torch.meshgrid(*share, indexing="ij"), dim=-1)
    # The part of the asked box that the grid has.
    low[2] = -1.0
    expected = grid((low + share * (high - low)).view(-1, 3)).T.view(2, *SIDES)
    assert grid.crop(low - torch.tensor([0.0, 0.0, 1.0]), high) == list(grid.factors.values())
    torch.testing.assert_close(torch.stack(grid.box()), torch.stack((low, high)))
    torch.testing.assert_close(grid.dense(), expected, atol=1e-5, rtol=1e-4)
    assert grid.crop(torch.full((3,), 5.0), torch.full((3,), 6.0)) == []


def test_a_grid_is_loaded_at_the_resolution_it_was_saved_with():
    options = {"resolution_changes": {0: SIDES, 3: [6, 7, 8]}}
    grid, other = make("vm", **options), make("vm", **options)
    grid.follow(3)
    grid.crop(torch.full((3,), -0.5), torch.full((3,), 0.5))
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    assert shapes == {name: value.shape for name, value in grid.state_dict().items()}
    other.load_state_dict(grid.state_dict())
    points = torch.rand(20, 3) - 0.5
    assert torch.equal(other(points), grid(points)) and other.follow(3) == []


def test_cells_are_occupied_where_something_is_and_next_to_it():
    scaffold = Scaffold([4, 4, 4])
    points = torch.tensor([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5], [2.5, 0.5, 0.5], [-0.1, 0.5, 0.5]])
    assert scaffold(points).all()

    def density(points: torch.Tensor) -> torch.Tensor:
        return (points < 1).all(dim=-1).float()

    scaffold.fill((torch.zeros(3), torch.full((3,), 4.0)), density, 0.5, reach=0)
    assert scaffold(points).tolist() == [True, False, False, False]
    torch.testing.assert_close(torch.stack(scaffold.box()), torch.tensor([[0.0] * 3, [1.0] * 3]))
    scaffold.fill((torch.zeros(3), torch.full((3,), 4.0)), density, 0.5, reach=1)
    assert scaffold(points).tolist() == [True, True, False, False]
    scaffold.fill((torch.zeros(3), torch.full((3,), 4.0)), density, 2.0, reach=1)
    assert scaffold.box() is None and not scaffold(points).any()


def test_leaving_out_empty_space_changes_nothing():
    scaffold = {"calculating_steps": [3], "cropping_steps": [4], "resolution": [18, 18, 18]}
    model = build(
        function={"scaffold": scaffold, "decoder_density": {"name": "elementwise", "operation": "relu"}}
    ).eval()
    function = model.functions[0]
    with torch.no_grad():
        values = function.density_grid.factors["xyz"].fill_(-1.0)
        values[:, 2:4, 2:4, 2:4] = 40.0
    rays = rays_of(40)
    asked = []
    function.color_decoder.register_forward_hook(lambda module, inputs, output: asked.append(len(output)))
    before = model(rays)
    assert model.arrange(2) == [] and model.arrange(3) == []
    after = model(rays)
    assert before.opacity.max() > 0.9 and asked[1] < 0.8 * asked[0]
    torch.testing.assert_close(after.color, before.color)
    torch.testing.assert_close(after.depth, before.depth)
    replaced = model.arrange(4)
    assert len(replaced) == 1 + 6 and model.arrange(4) == []
    assert (function.density_grid.extents < 3).all() and torch.equal(
        *(grid.extents for grid in function.children() if isinstance(grid, VoxelGrid))
    )


def test_the_published_defaults_work():
    grid = {"name": "full", "resolution_changes": {0: [4, 4, 4]}}
    torch.manual_seed(0)
    node = {"implicit_function": {"name": "voxel-grid", "voxel_grid_density": grid, "voxel_grid_color": grid}}
    model = models.make(parse(models.get("generic").Config, {**node, "num_passes": 2}, "model")).train()
    rendered = model(rays_of(10))
    assert 0 <= rendered.color.min() and rendered.color.max() <= 1
    (rendered.color.sum() + rendered.coarse.color.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_last_activation_is_that_of_the_last_layer():
    decoder = MLPDecoder(MLPDecoder.Config(n_layers=2, input_skips=[], last_activation="tanh"), 3, 2, "relu")
    x = torch.randn(10, 3)
    first, last = decoder.layers
    torch.testing.assert_close(decoder(x), torch.tanh(last(torch.relu(first(x)))))


def test_colours_may_be_those_of_the_grid_itself():
    function = {
        "voxel_grid_color": {"name": "full", **SMALL, "n_features": 3},
        "n_harmonic_functions_color": 0,
        "n_harmonic_functions_dir": None,
        "decoder_color": {"name": "elementwise", "operation": "sigmoid"},
    }
    model = build(function=function)
    points, directions = torch.randn(2, 10, 3)
    color = model.functions[0].at(points, directions, model.encode(rays_of(10))).feature[:, 0]
    torch.testing.assert_close(color, torch.sigmoid(model.functions[0].color_grid(points)))


def test_total_variation_is_that_of_the_decoded_vertices():
    model = build(function={"return_density_grid": True}, share_implicit_function_across_passes=True).train()
    rendered = model(rays_of(4))
    grid = torch.nn.functional.softplus(model.functions[0].density_grid.factors["xyz"])
    torch.testing.assert_close(rendered.density_grid, grid)
    torch.testing.assert_close(rendered.coarse.density_grid, grid)
    losses = LossSet({"lambda_density_tv": Schedule.constant(1.0)}, model.quantities)
    losses(rendered, Target(torch.zeros(4, 3)), 0, 0).total.backward()
    assert model.functions[0].density_grid.factors["xyz"].grad[:, :-1, :-1, :-1].abs().min() > 0
    with pytest.raises(ConfigError, match="return_density_grid"):
        LossSet({"lambda_density_tv": Schedule.constant(1.0)}, build().quantities)
    assert build().train()(rays_of(4)).density_grid is None


def test_the_mesh_is_where_the_decoded_density_crosses_the_threshold():
    model = build().eval()
    points = torch.rand(20, 3) - 0.5
    density = torch.nn.functional.softplus(model.functions[0].density_grid(points))[:, 0]
    torch.testing.assert_close(model.level(points), 5 - density)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ({"voxel_grid_density": {"name": "full", "resolution_changes": {5: [4, 4, 4]}}}, "at step 0 is missing"),
        ({"voxel_grid_density": {"name": "full", "resolution_changes": {0: [4, 4]}}}, "three numbers of 2 or more"),
        ({"voxel_grid_density": {"name": "cp", "basis_matrix": False, "n_features": 2}}, "without basis_matrix"),
        ({"voxel_grid_density": {"name": "vm", "distribution_of_components": [8]}}, "distribution_of_components is"),
        ({"voxel_grid_density": {"name": "full", "extents": [0.0, 1.0, 1.0]}}, "extents above 0"),
        ({"n_harmonic_functions_density": 6}, "given 13 numbers at a point, but has to make 1"),
        ({"decoder_color": {"name": "mlp", "n_layers": 2}}, "input_skips is \\[5\\]"),
        ({"scaffold": {"calculating_steps": []}}, "calculating_steps is"),
        ({"scaffold": {"calculating_steps": [5], "cropping_steps": [3]}}, "before the first of"),
        ({"scaffold": {"calculating_steps": [5], "max_pool_kernel_size": 2}}, "an odd number"),
    ],
)
def test_options_that_cannot_be_are_refused(function, message):
    with pytest.raises(ConfigError, match=message):
        build(function=function)


def test_codes_are_refused():
    with pytest.raises(ConfigError, match="takes no code"):
        build(global_encoder={"name": "harmonic-time"})
