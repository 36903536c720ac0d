"""Laws of the transformer over source views and points."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import models
from models.fields.implicit import FieldOutput, Sizes
from models.fields.nerformer import NeRFormer
from models.fields.transformer import ViewRayTransformer
from utils.config import parse
from utils.registry import ConfigError
from utils.types import Context, RayPoints, Rays

SMALL = {"n_harmonic_functions_xyz": 2, "n_harmonic_functions_dir": 1, "n_hidden_neurons_dir": 8}


def function(n_code: int = 0, n_pooled: int = 0, **options: Any) -> NeRFormer:
    torch.manual_seed(0)
    config = NeRFormer.Config(**(SMALL | {"n_hidden_neurons_xyz": 16} | options))
    return NeRFormer(config, Sizes(n_code=n_code, n_pooled=n_pooled))


def rays(n: int) -> Rays:
    generator = torch.Generator().manual_seed(1)
    direction = F.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    row = torch.zeros(n, dtype=torch.int64)
    return Rays(-2 * direction, direction, torch.zeros(n, 3), row, row[:, None].expand(n, 2))


def points(n: int, n_points: int = 5) -> RayPoints:
    return RayPoints(torch.rand(n, n_points, generator=torch.Generator().manual_seed(2)).sort(dim=1).values)


def assert_same(ours: FieldOutput, theirs: FieldOutput) -> None:
    torch.testing.assert_close(ours.density, theirs.density)
    torch.testing.assert_close(ours.feature, theirs.feature)


def test_the_order_of_source_views_does_not_matter() -> None:
    asked, at, pooled = rays(3), points(3), torch.randn(3, 4, 5, 6)
    network = function(n_pooled=6)
    one, other = network(asked, at, Context(), pooled), network(asked, at, Context(), pooled[:, [2, 0, 3, 1]])
    assert_same(one, other)
    assert not torch.allclose(one.density, network(asked, at, Context(), pooled[:, :3]).density)


def test_points_answer_alike_in_any_order_and_know_of_each_other() -> None:
    asked, at, network = rays(3), points(3), function()
    order = torch.tensor([3, 0, 4, 1, 2])
    output = network(asked, at, Context())
    assert_same(network(asked, RayPoints(at.t[:, order]), Context()), output.map(lambda tensor: tensor[:, order]))
    fewer = network(asked, RayPoints(at.t[:, :4]), Context())
    assert not torch.allclose(fewer.density, output.density[:, :4])


def test_rays_know_nothing_of_each_other() -> None:
    asked, at, network, code = rays(7), points(7), function(n_code=3), torch.randn(7, 3)
    whole = network(asked, at, Context(code))
    parts = [network(asked[rows], at[rows], Context(code[rows])) for rows in (slice(0, 2), slice(2, 7))]
    assert_same(FieldOutput.cat(parts), whole)


def test_parts_known_of_fewer_things_count_for_all_of_them() -> None:
    torch.manual_seed(0)
    trunk = ViewRayTransformer([8, 4], 8, 9, [])
    parts = [torch.randn(2, 1, 5, 3), torch.randn(2, 4, 5, 4), torch.randn(2, 1, 1, 2)]
    beside = torch.cat([part.expand(2, 4, 5, -1) for part in parts], dim=-1)
    torch.testing.assert_close(trunk(parts), trunk([beside]))


def test_one_source_view_is_taken_as_it_is() -> None:
    trunk = ViewRayTransformer([8], 8, 3, [])
    x = torch.randn(2, 1, 5, 3)
    torch.testing.assert_close(trunk([x]), trunk.last(trunk.first(x[:, 0])))


@pytest.mark.parametrize(("n", "n_points"), [(0, 5), (3, 1), (1, 7)])
def test_any_number_of_rays_and_points_will_do(n: int, n_points: int) -> None:
    output = function(n_code=2, input_xyz=False)(rays(n), points(n, n_points), Context(torch.randn(n, 2)))
    assert output.density.shape == (n, n_points) and output.feature.shape == (n, n_points, 3)


def test_it_is_rendered_in_passes_with_gradients_for_all_of_it() -> None:
    torch.manual_seed(0)
    part = {"name": "nerformer", "n_hidden_neurons_xyz": 16, **SMALL}
    sampler = {"name": "adaptive", "n_pts_per_ray_training": 6}
    renderer = {"name": "multipass-ea", "n_pts_per_ray_fine_training": 3}
    tree = {"num_passes": 2, "implicit_function": part, "ray_sampler": sampler, "renderer": renderer}
    model = models.make(parse(models.get("generic").Config, tree, "model"))
    rendered = model(rays(4))
    (rendered.color.sum() + rendered.coarse.color.sum()).backward()
    assert rendered.n_samples == 4 * (6 + 9)
    for name, parameter in model.named_parameters():
        assert gradient_is_there(parameter.grad), name
    assert model.isosurface is None


def gradient_is_there(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_hidden_neurons_xyz": 20}, "make layers of widths .20, 10, 5.; expected multiples of 4"),
        ({"append_xyz": [2]}, "append_xyz is .2.; expected layers from 1 to 1"),
        ({"input_xyz": False}, "input_xyz is false, so that the network sees nothing"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        function(**options)
