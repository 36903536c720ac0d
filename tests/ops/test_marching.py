"""Marching against a step-by-step walk in float64, for both backends."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from models import ops
from models.ops import native

FAR = 100.0


@pytest.fixture(autouse=True, params=["native", "reference"])
def backend(request):
    torch.manual_seed(0)
    if request.param == "native" and native.obstacle():
        pytest.skip(f"no kernels to test: {native.obstacle()}")
    return request.param


def march(
    backend, origins, directions, grid, near=0.0, far=FAR, radius=1.0, step=0.05, cone=0.0, jitter=0.0, space="box"
):
    n = len(origins)
    ranges = [torch.full((n,), near), torch.full((n,), far)]
    offset = torch.full((n,), jitter) if isinstance(jitter, float) else jitter
    return ops.march(origins, directions, *ranges, grid, space, radius, step, cone, offset, backend)


def random_rays(n):
    """Rays from outside towards the middle, a few of which miss."""
    origins = normalize(torch.randn(n, 3), dim=1) * 3
    return origins, normalize(torch.randn(n, 3) * 0.7 - origins, dim=1)


def slow_ray(o, d, near, far, grid, radius, step, cone, jitter, space):
    """Beginnings of the kept intervals of one ray, or None where rounding could decide otherwise."""
    size, kept = len(grid), []
    if space == "box":
        for x, v in zip(o, d, strict=True):
            first, second = (-radius - x) / v, (radius - x) / v
            near, far = max(near, min(first, second)), min(far, max(first, second))
    t, k = near + jitter * step, 0
    while True:
        width = max(step, t * cone)
        middle = t + width / 2
        if abs(middle - far) < 1e-4 * max(1, far):
            return None
        if middle > far:
            return kept
        z = [(x + middle * v) / radius for x, v in zip(o, d, strict=True)]
        norm = math.sqrt(sum(x * x for x in z))
        shrink = 0.5 if space == "box" else 0.25 * ((2 - 1 / norm) / norm if norm > 1 else 1)
        position = [(x * shrink + 0.5) * size for x in z]
        if min(abs(p - round(p)) for p in position) < 2e-4:
            return None
        x, y, z = (min(max(int(p), 0), size - 1) for p in position)
        state = int(grid[z, y, x])
        if state == 2:
            return kept
        if state == 1:
            kept.append(t)
        k += 1
        t = t + width if cone > 0 else near + (jitter + k) * step


@pytest.mark.parametrize(
    ("space", "cone", "near", "far"),
    [("box", 0.0, 0.0, FAR), ("box", 0.02, 0.5, 3.5), ("sphere", 0.03, 0.2, 300.0), ("sphere", 0.0, 0.1, 8.0)],
)
def test_the_kept_intervals_are_those_of_a_walk_in_single_steps(backend, space, cone, near, far):
    origins, directions = random_rays(200)
    grid = torch.multinomial(torch.tensor([0.7, 0.27, 0.03]), 8**3, replacement=True).view(8, 8, 8).to(torch.uint8)
    jitter = torch.rand(200)
    t_start, t_end, ray, offsets = march(backend, origins, directions, grid, near, far, 1.2, 0.05, cone, jitter, space)
    assert torch.equal(ray, torch.repeat_interleave(torch.arange(200), offsets.diff()))
    assert torch.allclose(t_end - t_start, (t_start * cone).clamp(min=0.05), atol=1e-6, rtol=1e-3)
    n_compared = 0
    for r in range(200):
        arguments = near, far, grid, 1.2, 0.05, cone, jitter[r].item(), space
        expected = slow_ray(origins[r].tolist(), directions[r].tolist(), *arguments)
        if expected is None:
            continue
        actual = t_start[offsets[r] : offsets[r + 1]]
        assert actual.tolist() == pytest.approx(expected, rel=2e-5, abs=1e-5)
        n_compared += 1
    assert n_compared > 100


def test_a_full_grid_is_sampled_without_gaps_from_entry_to_exit(backend):
    origins, directions = random_rays(100)
    near, far, hit = ops.ray_box(origins, directions, 1.0)
    t_start, t_end, _, offsets = march(backend, origins, directions, torch.ones(4, 4, 4, dtype=torch.uint8))
    assert 10 < int(hit.sum()) < 100
    for r, (start, end) in enumerate(zip(offsets.tolist(), offsets.tolist()[1:], strict=False)):
        if not hit[r]:
            assert start == end
            continue
        assert torch.allclose(t_start[start + 1 : end], t_end[start : end - 1], atol=1e-5)
        # The last midpoint lies before the exit, the one after it would not.
        assert abs(float((t_end[start:end] - t_start[start:end]).sum() - (far[r] - near[r]))) <= 0.0251


def test_an_empty_grid_and_a_solid_one_have_no_samples(backend):
    origins, directions = random_rays(50)
    for state in (0, 2):
        grid = torch.full((4, 4, 4), state, dtype=torch.uint8)
        assert int(march(backend, origins, directions, grid)[3][-1]) == 0


def test_a_ray_ends_at_the_first_solid_cell(backend):
    grid = torch.ones(1, 1, 1, dtype=torch.uint8).repeat(4, 4, 4)
    grid[2, :, :] = 2  # indexed z first: 0 <= z < 0.5
    origin, down = torch.tensor([[0.1, 0.1, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    t_start, t_end, _, _ = march(backend, origin, down, grid, step=0.01)
    assert float(t_start[0]) == pytest.approx(2.0, abs=1e-5)
    assert float(t_end[-1]) == pytest.approx(2.5, abs=0.0051)


def test_a_finer_grid_never_moves_the_samples(backend):
    origins, directions = random_rays(30)
    coarse = march(backend, origins, directions, torch.ones(1, 1, 1, dtype=torch.uint8))
    fine = march(backend, origins, directions, torch.ones(32, 32, 32, dtype=torch.uint8))
    assert all(torch.equal(a, b) for a, b in zip(coarse, fine, strict=True))


def test_jitter_shifts_the_samples_by_parts_of_a_step(backend):
    origin, along = torch.tensor([[-3.0, 0.1, 0.1]]), torch.tensor([[1.0, 0.0, 0.0]])
    grid = torch.ones(2, 2, 2, dtype=torch.uint8)
    still = march(backend, origin, along, grid, step=0.1)[0]
    moved = march(backend, origin, along, grid, step=0.1, jitter=torch.tensor([0.4]))[0]
    assert torch.allclose(moved, still[: len(moved)] + 0.04, atol=1e-5)


def test_all_of_space_has_a_cell_in_the_contracted_sphere(backend):
    origin, along = torch.zeros(1, 3), normalize(torch.tensor([[1.0, 0.3, 0.2]]), dim=1)
    grid = torch.ones(16, 16, 16, dtype=torch.uint8)
    t_start, t_end, _, _ = march(backend, origin, along, grid, 0.2, 1e4, step=0.01, cone=0.01, space="sphere")
    assert float(t_start[0]) == pytest.approx(0.2) and float(t_end[-1]) == pytest.approx(1e4, rel=0.011)


def test_broken_rays_get_no_samples_and_do_no_harm(backend):
    origins, directions = random_rays(40)
    origins, directions = origins * 0.1, directions.clone()  # from inside: every sound ray has samples
    origins[3, 1], directions[7], directions[8] = float("nan"), float("nan"), float("inf")
    directions[9], directions[10, 0] = 0.0, 0.0
    for space in ("box", "sphere"):
        counts = march(backend, origins, directions, torch.ones(8, 8, 8, dtype=torch.uint8), far=9.0, space=space)[
            3
        ].diff()
        sound = torch.ones(40, dtype=torch.bool)
        sound[[3, 7, 8]] = False
        assert counts[~sound].tolist() == [0, 0, 0] and bool((counts[sound] > 0).all())


def test_a_ray_without_end_gets_no_samples(backend):
    rays = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
    grid = torch.ones(4, 4, 4, dtype=torch.uint8)
    assert int(march(backend, *rays, grid, far=float("inf"), space="sphere")[3][-1]) == 0
    assert int(march(backend, *rays, grid, far=float("inf"), space="box")[3][-1]) == 20  # clipped to the cube


def test_a_step_too_short_for_float32_ends_the_ray_instead_of_hanging(backend):
    rays = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]])
    grid = torch.ones(4, 4, 4, dtype=torch.uint8)
    result = march(backend, *rays, grid, near=1e6, far=2e6, step=1e-3, cone=1e-12, space="sphere")
    assert int(result[3][-1]) == 0


def test_no_rays_give_no_samples(backend):
    t_start, _, _, offsets = march(
        backend, torch.zeros(0, 3), torch.zeros(0, 3), torch.ones(2, 2, 2, dtype=torch.uint8)
    )
    assert len(t_start) == 0 and offsets.tolist() == [0]


@pytest.mark.parametrize("change", [{"step": 0.0}, {"radius": -1.0}, {"cone": -0.1}, {"space": "cylinder"}])
def test_impossible_arguments_are_refused(backend, change):
    with pytest.raises((ValueError, TypeError)):
        march(backend, torch.zeros(1, 3), torch.ones(1, 3), torch.ones(2, 2, 2, dtype=torch.uint8), **change)


def test_a_ray_in_a_face_of_the_box_is_a_miss_and_no_nan():
    origins = torch.tensor([[1.0, 0.0, -3.0], [-1.0, 0.0, -3.0]])
    near, far, hit = ops.ray_box(origins, torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3), 1.0)
    assert not hit.any() and not (near + far).isnan().any()


def test_a_box_behind_the_origin_is_missed():
    _, _, hit = ops.ray_box(torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, 1.0]]), 1.0)
    assert not hit.item()


@pytest.mark.parametrize("size", [1, 6, 24])
def test_leaping_over_gaps_changes_nothing(backend, size):
    origins, directions = random_rays(300)
    grid = (torch.rand(size, size, size) < 0.01).to(torch.uint8)
    grid[size // 2 :] *= 2
    grid[: size // 3] = 0
    n = torch.full((300,), 0.0)
    arguments = origins, directions, n, n + FAR, grid, "box", 1.0, 0.01, 0.0, torch.rand(300), backend
    with_gaps, without = ops.march(*arguments, gaps=ops.empty_gaps(grid)), ops.march(*arguments)
    for left, right in zip(with_gaps, without, strict=True):
        assert torch.equal(left, right)


def test_a_gap_is_the_distance_to_the_next_block_that_holds_something():
    grid = torch.zeros(20, 20, 20, dtype=torch.uint8)
    grid[9, 2, 3] = 2  # block 2, 0, 0
    gaps = ops.empty_gaps(grid)
    z, y, x = torch.meshgrid(*[torch.arange(5)] * 3, indexing="ij")
    assert torch.equal(gaps.long(), torch.stack([(z - 2).abs(), y, x]).amax(0))
