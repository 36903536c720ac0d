"""Laws of decimation, unwrapping and baking."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.csgraph
import torch

from models import decimation, texture_atlas
from models.decimation import decimate
from models.mesh import extract, report
from models.texture_atlas import _texels, bake, unwrap
from utils import rasterization
from utils.rasterization import fragments
from utils.types import Mesh

CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3])


def torus(points):
    return ((points[:, :2].norm(dim=-1) - 0.6).square() + points[:, 2].square()).sqrt() - 0.2


def by_position(points, normals):
    return 0.5 + 0.5 * points


@pytest.fixture(scope="module")
def light() -> Mesh:
    return decimate(extract(torus, CUBE, 64), 4000)


@pytest.fixture(scope="module")
def baked(light) -> Mesh:
    return bake(unwrap(light, 512), by_position, 512, chunk=10_000)


def sample(mesh: Mesh, uv):
    """Colours at texture coordinates by bilinear interpolation, as a viewer would."""
    image = mesh.texture.permute(2, 0, 1).double() / 255
    grid = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], dim=-1).double()
    return torch.nn.functional.grid_sample(image[None], grid[None, None], align_corners=False)[0, :, 0].T


def surface_points(mesh: Mesh, seed: int = 0):
    """One random point in each face: its world position and texture coordinates."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(len(mesh.faces), 3, generator=generator)
    weight = (weight / weight.sum(dim=-1, keepdim=True))[..., None]
    return (weight * mesh.vertices[mesh.faces]).sum(dim=1), (weight * mesh.uv[mesh.faces]).sum(dim=1)


def areas(corner):
    return 0.5 * torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=-1)


def test_decimation_keeps_the_surface(light):
    summary = report(light)
    assert 3000 < summary["faces"] <= 4000
    assert summary["is_watertight"] and summary["euler"] == 0
    assert torus(light.vertices).abs().max() < 0.01
    outward = torch.nn.functional.normalize(light.vertices * torch.tensor([1.0, 1.0, 0.0]), dim=-1) * 0.6
    assert ((light.vertices - outward) / 0.2 * light.normals).sum(dim=-1).min() > 0.8
    assert decimate(light, 4000) is light


def test_a_mesh_that_is_decimated_in_blocks_stays_closed_and_in_place(monkeypatch):
    monkeypatch.setattr(decimation, "AT_ONCE", 4000)
    monkeypatch.setattr(decimation, "FACES_PER_BLOCK", 2000)
    full, shares = extract(torus, CUBE, 96), []
    light = decimate(full, 800, shares.append)
    summary = report(light)
    assert len(full.faces) > 2 * 4000 and 600 < summary["faces"] <= 800
    assert summary["is_watertight"] and summary["euler"] == 0
    assert torus(light.vertices).abs().max() < 0.03
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) > 8


def test_unwrapping_cuts_seams_and_moves_nothing(light):
    flat = unwrap(light, 512)
    assert len(flat.faces) == len(light.faces)
    assert len(flat.vertices) > len(light.vertices)  # a torus cannot be flattened uncut
    assert flat.uv.min() >= 0 and flat.uv.max() <= 1
    torch.testing.assert_close(areas(flat.vertices[flat.faces]).sum(), areas(light.vertices[light.faces]).sum())
    centre = torch.nn.functional.normalize(flat.vertices * torch.tensor([1.0, 1.0, 0.0]), dim=-1) * 0.6
    assert ((flat.vertices - centre) * flat.normals).sum(dim=-1).min() > 0


def test_faces_do_not_overlap_in_the_atlas(light):
    flat = unwrap(light, 512)
    covered = torch.zeros(1024 * 1024, dtype=torch.int64)
    texel = torch.cat([part.pixel for part in fragments(_texels(flat.uv, 1024)[flat.faces], 1024, 1024)])
    covered.index_add_(0, texel, torch.ones_like(texel))
    assert covered.max() == 1
    corner = torch.nn.functional.pad(flat.uv[flat.faces], (0, 1))
    assert len(texel) == pytest.approx(float(areas(corner).sum()) * 1024**2, rel=0.01)


def test_a_texture_gives_back_the_colours_of_the_surface(baked):
    points, uv = surface_points(baked)
    error = (sample(baked, uv) - by_position(points, None)).abs()
    # A texel of 512 is about 0.006 world units wide, half of which is a colour.
    # A chart without the middle of any texel, one of a sliver of a triangle, takes its neighbour's colour.
    assert (error.amax(dim=1) < 0.012).double().mean() > 0.999 and error.mean() < 0.002


def test_no_colour_bleeds_over_a_seam(light):
    # Whatever lies outside the charts is as white as the surface: a filter of several texels finds nothing else.
    mesh = bake(unwrap(light, 256), lambda points, normals: torch.ones_like(points), 256)
    assert (mesh.texture == 255).all()


def test_normals_reach_the_colour_function(light):
    mesh = bake(unwrap(light, 512), lambda points, normals: 0.5 + 0.5 * normals, 512)
    points, uv = surface_points(mesh)
    centre = torch.nn.functional.normalize(points * torch.tensor([1.0, 1.0, 0.0]), dim=-1) * 0.6
    truth = 0.5 + 0.5 * torch.nn.functional.normalize(points - centre, dim=-1)
    assert (sample(mesh, uv) - truth).abs().mean() < 0.02


def test_the_first_row_of_a_texture_is_its_top():
    quad = Mesh(
        vertices=torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]),
        faces=torch.tensor([[0, 1, 2], [0, 2, 3]]),
        normals=torch.tensor([[0.0, 0, 1]]).expand(4, 3),
        uv=torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]]),
    )
    texture = bake(quad, lambda points, normals: points, 4).texture
    # Centres of texels lie at 1/8, 3/8, 5/8, 7/8.
    assert texture[0, 0].tolist() == [32, 223, 0]
    assert texture[3, 3].tolist() == [223, 32, 0]


def test_a_mesh_must_be_unwrapped_before_it_is_baked(light):
    with pytest.raises(ValueError, match="unwrap it first"):
        bake(light, by_position, 64)


def test_unwrapping_in_pieces_tells_how_far_it_is_and_leaves_space_between_charts(light, monkeypatch):
    monkeypatch.setattr(texture_atlas, "FACES_PER_BLOCK", 200)
    told = []
    flat = unwrap(light, 512, told.append)
    assert len(told) >= 2 and told == sorted(told) and told[-1] == 1
    texels = _texels(flat.uv, 512)[flat.faces]
    owner = torch.full((512 * 512,), -1)
    _, chart = charts(flat)
    for part in fragments(texels, 512, 512):
        owner[part.pixel] = chart[part.face]
    owner = owner.view(512, 512)
    # Two texels apart there is never another chart: padding is about four.
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0)):
        moved = owner.roll(shift, dims=(0, 1))
        assert not ((owner != moved) & (owner >= 0) & (moved >= 0)).any()
    assert (owner >= 0).float().mean() > 0.35


def charts(mesh: Mesh) -> tuple[int, torch.Tensor]:
    """How many connected parts there are, and the part of each face."""
    graph = scipy.sparse.coo_matrix((np.ones(2 * len(mesh.faces)), mesh.faces[:, [0, 1, 1, 2]].view(-1, 2).T.numpy()))
    graph.resize(len(mesh.vertices), len(mesh.vertices))
    n, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return n, torch.from_numpy(label)[mesh.faces[:, 0]].long()


def test_texels_are_spread_evenly_over_the_surface(light):
    flat = unwrap(light, 512)
    corner = torch.nn.functional.pad(flat.uv[flat.faces], (0, 1))
    share = areas(corner) / areas(flat.vertices[flat.faces])
    assert share.quantile(0.95) / share.quantile(0.05) < 2


def test_faces_without_area_are_no_obstacle(light):
    flat = torch.tensor([[0, 0, 1], [0, 1, 2]])
    sliver = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    mesh = Mesh(light.vertices, torch.cat([light.faces, flat]))
    assert len(unwrap(mesh, 256).faces) == len(mesh.faces)
    assert bake(unwrap(sliver, 16), by_position, 16).texture.shape == (16, 16, 3)


def test_a_texture_is_the_same_whatever_is_done_at_once(light, baked, monkeypatch):
    monkeypatch.setattr(texture_atlas, "BAND", 30 * 512)
    monkeypatch.setattr(rasterization, "BAND", 7 * 512)
    told = []
    pieces = bake(replace(baked, texture=None), by_position, 512, chunk=777, progress=told.append)
    assert torch.equal(pieces.texture, baked.texture)
    assert told == sorted(told) and 0.5 < told[-1] <= 1
