"""Laws of sphere tracing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.rendering.sphere_tracing import SphereTracer, sphere_range
from utils.registry import ConfigError
from utils.types import Rays

Shape = Callable[[Tensor], Tensor]


def ball(points: Tensor, radius: float = 0.6) -> Tensor:
    return points.norm(dim=-1) - radius


def rays(origins: Tensor, directions: Tensor) -> Rays:
    row = torch.zeros(len(origins), dtype=torch.int64)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return Rays(origins, directions, torch.zeros(len(origins), 3), row, row[:, None].expand(-1, 2))


def fan(n: int = 200, spread: float = 0.35) -> Rays:
    """From x = -3 towards the origin and past it."""
    torch.manual_seed(0)
    aim = torch.cat([torch.ones(n, 1), spread * (2 * torch.rand(n, 2) - 1)], dim=1)
    return rays(torch.tensor([[-3.0, 0, 0]]).expand(n, 3), aim)


class Asked:
    """A shape along rays, and how often it was asked about each."""

    def __init__(self, shape: Shape, rays: Rays):
        self.shape, self.rays = shape, rays
        self.count = torch.zeros(len(rays), dtype=torch.int64)

    def __call__(self, row: Tensor, t: Tensor) -> Tensor:
        self.count.index_add_(0, row, torch.full_like(row, t.shape[1]))
        return self.shape(self.rays.origins[row, None] + t[..., None] * self.rays.directions[row, None])


def tracer(radius: float = 1.0, **options) -> SphereTracer:
    return SphereTracer(SphereTracer.Config(**options), radius)


def test_a_sphere_is_hit_at_its_distance_from_outside():
    lines = fan()
    near, _, crosses = sphere_range(lines, 0.6)
    trace = tracer().trace(lines, Asked(ball, lines))
    # Rays that touch the sphere within the threshold may count either way.
    _, _, is_safe = sphere_range(lines, 0.599)
    assert 50 < crosses.sum() < 150
    assert trace.is_hit[is_safe].all() and not trace.is_hit[~crosses].any()
    assert (trace.t - near)[is_safe].abs().max() < 2e-3
    head_on = rays(torch.tensor([[-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]))
    assert tracer().trace(head_on, Asked(ball, head_on)).t.item() == pytest.approx(2.4, abs=1e-6)


def test_a_camera_within_the_bounding_sphere_sees_what_is_before_it_and_not_what_is_behind():
    lines = rays(torch.tensor([[-0.8, 0, 0], [-0.8, 0, 0]]), torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]))
    trace = tracer().trace(lines, Asked(ball, lines))
    assert trace.is_hit.tolist() == [True, False]
    assert trace.t[0].item() == pytest.approx(0.2, abs=1e-4)


def test_the_wall_of_a_room_is_hit_at_its_distance_from_inside():
    torch.manual_seed(0)
    lines = rays(0.3 * torch.randn(100, 3).clamp(-0.5, 0.5), torch.randn(100, 3))
    trace = tracer().trace(lines, Asked(lambda points: -ball(points), lines))
    _, far, _ = sphere_range(lines, 0.6)
    assert trace.is_hit.all()
    assert (trace.t - far).abs().max() < 2e-3


def test_a_camera_within_matter_sees_it_at_distance_zero():
    lines = rays(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0]]))
    trace = tracer().trace(lines, Asked(ball, lines))
    assert trace.is_hit.item() and trace.t.item() == 0


def test_rays_that_pass_by_or_leave_behind_the_bounding_sphere_miss_and_ask_next_to_nothing():
    origins = torch.tensor([[-3.0, 0, 0], [-3.0, 1.5, 0], [3.0, 0, 0]])
    lines = rays(origins, torch.tensor([[0.0, 1, 0], [1.0, 0, 0], [1.0, 0, 0]]))
    asked = Asked(ball, lines)
    trace = tracer().trace(lines, asked)
    assert not trace.is_hit.any() and not trace.is_searched.any()
    assert asked.count[:2].tolist() == [0, 0] and asked.count[2] <= 6


@pytest.mark.parametrize("angle", [0.0, 0.8, 1.4])
def test_a_thin_plate_is_hit_on_its_face(angle: float):
    # A plate of thickness 0.002 across the x axis, seen at an angle to its normal.
    direction = torch.tensor([angle]).cos().item(), torch.tensor([angle]).sin().item()
    aim = torch.tensor([[direction[0], direction[1], 0.0]])
    lines = rays(-3 * aim + torch.tensor([[0.0, 0.1, 0.2]]), aim)
    trace = tracer().trace(lines, Asked(lambda points: points[..., 0].abs() - 0.001, lines))
    assert trace.is_hit.item()
    assert trace.t.item() == pytest.approx(3 - 0.001 / direction[0], abs=1e-3)


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.5, 2.0])
def test_a_field_that_is_no_distance_is_hit_at_its_first_surface(scale: float):
    lines = fan(spread=0.15)
    near, _, _ = sphere_range(lines, 0.6)
    trace = tracer(line_step_iters=3).trace(lines, Asked(lambda points: scale * ball(points), lines))
    assert trace.is_hit.all()
    assert (trace.t - near).abs().max() < 5e-3


def test_of_two_surfaces_the_first_is_hit():
    lines = fan(spread=0.02)
    both = lambda points: torch.minimum(  # noqa: E731
        ball(points - torch.tensor([-0.5, 0, 0]), 0.2), ball(points - torch.tensor([0.5, 0, 0]), 0.3)
    )
    trace = tracer().trace(lines, Asked(both, lines))
    assert trace.is_hit.all() and (trace.t - 2.3).abs().max() < 0.02


def test_a_ray_that_is_decided_is_not_asked_again():
    lines = fan(40)
    together = Asked(ball, lines)
    trace = tracer().trace(lines, together)
    alone = []
    for row in range(len(lines)):
        asked = Asked(ball, lines[row : row + 1])
        tracer().trace(lines[row : row + 1], asked)
        alone.append(asked.count.item())
    assert together.count.tolist() == alone
    # Marching takes at most twenty steps and their pull-backs; only what is left undecided is sampled.
    assert together.count[~trace.is_searched].max() <= 42 and together.count[trace.is_searched].min() > 100


def test_a_taught_ray_is_put_where_it_is_deepest():
    # Passing by the ball, through it beside the mask, through it on the mask, and by the bounding sphere.
    origins = torch.tensor([[-3.0, 0.8, 0], [-3.0, 0.3, 0], [-3.0, 0.3, 0], [-3.0, 2.0, 0]])
    lines = rays(origins, torch.tensor([[1.0, 0, 0]]).expand(4, 3))
    is_object = torch.tensor([True, False, True, True])
    asked = Asked(ball, lines)
    trace = tracer().trace(lines, asked, is_object)
    t = tracer().deepest(lines, asked, trace, is_object, torch.linspace(0, 1, 301))
    assert trace.is_hit.tolist() == [False, True, True, False]
    assert t[:2] == pytest.approx(torch.tensor([3.0, 3.0]), abs=5e-3)
    assert t[2].item() == pytest.approx(3 - (0.36 - 0.09) ** 0.5, abs=1e-3)
    assert t[3].item() == pytest.approx(3.0)


def test_no_rays_give_no_hits():
    lines = fan(0)
    asked = Asked(ball, lines)
    trace = tracer().trace(lines, asked)
    nothing = torch.zeros(0, dtype=torch.bool)
    assert len(trace.t) == len(trace.is_hit) == 0
    assert len(tracer().deepest(lines, asked, trace, nothing, torch.rand(5))) == 0


def test_senseless_numbers_of_steps_are_refused():
    with pytest.raises(ConfigError, match="n_steps is 1; expected 2"):
        tracer(n_steps=1)
