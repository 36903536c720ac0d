"""IDR's field, sphere tracing and renderer against recorded numbers of the published code, gradients included.

Their colour ends in a tanh [D11], which is an option here.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.fields.idr import IdrField
from models.fields.implicit import Sizes
from models.rendering.normal_color import NormalColor
from models.rendering.sdf_renderer import SdfRenderer
from models.rendering.sphere_tracing import SphereTracer
from tests.parity.reference import Arrays, assert_agrees, group, load, put, rays_of
from utils.types import Context, RayPoints, Rays, Rendered


def names(module: nn.Module, prefix: str = "") -> dict[str, str]:
    """Their names of parameters, which begin with `prefix`, by ours."""
    change = {
        "layers.": "linear_layers.",
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
    }
    theirs = {name: prefix + name for name, _ in module.named_parameters()}
    for ours, other in change.items():
        theirs = {name: value.replace(ours, other) for name, value in theirs.items()}
    return theirs


def assert_gradients_agree(module: nn.Module, theirs: Arrays) -> None:
    ours = names(module)
    assert set(ours.values()) == set(theirs)
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert_agrees(parameter.grad, theirs[ours[name]])


def test_field_with_skip_and_code() -> None:
    data = load("idr_field")
    field = IdrField(IdrField.Config(dims=3 * [32], skip_in=[2], n_harmonic_functions_xyz=2), Sizes(3, n_code=3))
    put(field, group(data, "sd"), names(field))
    context = Context(data["global_code"].expand(len(data["points"]), -1))
    sdf, gradient, feature = field.with_gradient(data["points"], context)
    assert_agrees(torch.cat([sdf[:, None], feature], dim=1), data["output"])
    assert_agrees(gradient, data["grad_sdf"])


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "sphere": lambda p: p.norm(dim=-1) - 0.6,
    "torus": lambda p: torch.hypot(p[..., :2].norm(dim=-1) - 0.55, p[..., 2]) - 0.2,
    # The recorded places tell what was traced: this one fits all of them to 3e-6.
    "wavy": lambda p: 1.6 * (p.norm(dim=-1) - 0.6 + 0.08 * torch.sin(9 * p[..., 0]) * torch.sin(9 * p[..., 1])),
}


def traced(data: Arrays) -> Rays:
    origins, directions = data["cam_loc"][0], data["directions"][0]
    row = torch.zeros(len(origins), dtype=torch.int64)
    return Rays(origins, directions, torch.zeros(len(origins), 3), row, row[:, None].expand(-1, 2))


@pytest.mark.parametrize("name", SHAPES)
def test_sphere_tracing(name: str) -> None:
    data = load("sphere_tracing")
    rays, is_object = traced(data), data["object_mask"][0]
    tracer = SphereTracer(SphereTracer.Config(), radius=1.0)

    def sdf(row: Tensor, t: Tensor) -> Tensor:
        return SHAPES[name](rays.origins[row, None] + t[..., None] * rays.directions[row, None])

    seen = tracer.trace(rays, sdf)
    assert torch.equal(seen.is_hit, data[f"{name}_eval_hit"].bool())
    assert_agrees(seen.t, data[f"{name}_eval_dist"])

    taught = tracer.trace(rays, sdf, is_object)
    t = tracer.deepest(rays, sdf, taught, is_object, data["train_uniform100"])
    assert torch.equal(taught.is_hit, data[f"{name}_train_hit"].bool())
    assert_agrees(t, data[f"{name}_train_dist"])
    assert_agrees(rays.origins + t[:, None] * rays.directions, data[f"{name}_train_points"])


def renderer(data: Arrays) -> tuple[SdfRenderer, IdrField, Rays, RayPoints]:
    field = IdrField(IdrField.Config(dims=2 * [24], n_harmonic_functions_xyz=2), Sizes())
    put(field, group(data, "field_sd"), names(field))
    color = NormalColor.Config(dims=2 * [16], n_harmonic_functions_dir=2, color_activation="tanh")
    config = SdfRenderer.Config(ray_normal_coloring_network=color, bg_color=[0.2, 0.3, 0.4])
    module = SdfRenderer(config, Sizes(), radius=1.0)
    put(module.color, group(data, "renderer_sd"), names(module.color, "_rgb_network."))
    rays, points = rays_of(data)
    rays.mask = data["object_mask"].reshape(-1).float()
    return module, field, rays, points


def assert_seen(seen: Rendered, theirs: Arrays, rays: Rays, is_hit: Tensor) -> None:
    """Ours has no depth where nothing is hit, and normals of length 1."""
    assert_agrees(seen.color, theirs["features"])
    assert_agrees(seen.opacity, theirs["masks"])
    assert torch.equal(seen.depth > 0, is_hit)
    assert_agrees(seen.depth[is_hit], theirs["depths"].view(-1)[is_hit])
    at = rays.origins + seen.depth[:, None] * rays.directions
    assert_agrees(at[is_hit], theirs["points"].view(-1, 3)[is_hit])
    assert seen.normal is not None
    assert_agrees(seen.normal, torch.nn.functional.normalize(theirs["normals"].view(-1, 3), dim=-1))


def test_what_the_renderer_sees() -> None:
    data = load("sdf_renderer")
    module, field, rays, points = renderer(data)
    with torch.no_grad():
        seen = module.eval()(rays, points, [field], Context())
    theirs = {key.removeprefix("eval_"): array for key, array in data.items() if key.startswith("eval_")}
    assert_seen(seen, theirs, rays, theirs["normals"].view(-1, 3).any(dim=1))


def test_what_the_renderer_teaches() -> None:
    data = load("sdf_renderer")
    module, field, rays, points = renderer(data)
    torch.manual_seed(56)
    seen = module.train()(rays, points, [field], Context())
    theirs = {key.removeprefix("train_"): array for key, array in data.items() if key.startswith("train_")}
    assert_seen(seen, theirs, rays, theirs["normals"].view(-1, 3).any(dim=1))
    # Theirs begins with the free points.
    assert seen.gradient is not None
    assert_agrees(seen.gradient.roll(len(rays) // 2, dims=0), theirs["grad_theta"])

    eikonal = (seen.gradient.norm(dim=1) - 1).square().mean()
    (seen.color.square().sum() + seen.opacity.sum() + eikonal).backward()
    assert_gradients_agree(field, group(data, "field_grad"))
    theirs = {key.removeprefix("_rgb_network."): value for key, value in group(data, "renderer_grad").items()}
    assert_gradients_agree(module.color, theirs)
