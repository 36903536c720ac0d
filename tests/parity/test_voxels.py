"""Voxel grids and decoders against recorded numbers of the published code."""

import pytest
import torch

from models.fields.decoders import ElementwiseDecoder, MLPDecoder
from models.fields.voxel_grids import FullGrid, VectorGrid, VectorMatrixGrid, VoxelGrid, resampled
from tests.parity.reference import Arrays, assert_agrees, load

BOX = {"extents": [2.0, 3.0, 4.0], "translation": [0.1, -0.2, 0.3]}


def filled(grid: VoxelGrid, values: dict[str, torch.Tensor]) -> VoxelGrid:
    """A grid with these factors and, under an empty name, basis."""
    with torch.no_grad():
        for name, value in values.items():
            (grid.basis if name == "" else grid.factors[name]).copy_(value)
    return grid


def full(values: torch.Tensor, **options) -> VoxelGrid:
    config = FullGrid.Config(n_features=len(values), resolution_changes={0: [*values.shape[1:]]}, **options)
    return filled(FullGrid(config), {"xyz": values})


def factored(data: Arrays, kind: str, align_corners: bool) -> VoxelGrid:
    options = {"resolution_changes": {0: [4, 5, 6]}, "n_features": 3, "align_corners": align_corners}
    basis = {"": data[f"{kind}_basis_matrix"][0]}
    vectors = {axis: data[f"{kind}_vector_components_{axis}"][0] for axis in "xyz"}
    if kind == "cp":
        return filled(VectorGrid(VectorGrid.Config(n_components=4, **options)), basis | vectors)
    planes = {axes: data[f"vm_matrix_components_{axes}"][0] for axes in ("xy", "yz", "xz")}
    config = VectorMatrixGrid.Config(distribution_of_components=[2, 3, 4], **options)
    return filled(VectorMatrixGrid(config), basis | vectors | planes)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("kind", ["full", "cp", "vm"])
def test_features_between_vertices(kind: str, align_corners: bool) -> None:
    data = load("voxel_grids")
    if kind == "full":
        grid = full(data["full_voxel_grid"][0], align_corners=align_corners)
    else:
        grid = factored(data, kind, align_corners)
    assert_agrees(grid(data["points_local"][0]), data[f"{kind}_out_align{int(align_corners)}"])


def test_features_in_the_world_and_at_another_resolution() -> None:
    data = load("voxel_grids")
    grid = full(data["module_grid"][0], **BOX)
    assert_agrees(grid(data["module_points"]), data["module_out"])
    config = FullGrid.Config(n_features=2, resolution_changes={0: [4, 5, 6], 3: [6, 7, 8]}, **BOX)
    growing = FullGrid(config)
    with torch.no_grad():
        growing.factors["xyz"][:, :4, :5, :6] = data["module_grid"][0]
    assert growing.follow(2) == [] and growing.follow(3) == [growing.factors["xyz"]]
    assert_agrees(growing.factors["xyz"], data["module_grid_epoch3"])
    assert_agrees(growing(data["module_points"]), data["module_out_epoch3"])


def test_vertices_of_a_crop() -> None:
    """They crop at whole vertices, those around the asked box, but then take it for the grid's: everything moves. Here
    the box is what was asked for and nothing moves, so that only the parts agree."""
    data = load("voxel_grids")
    values, (low, high) = data["module_grid_epoch3"][0], ([-0.4, -0.9, -0.8], [0.7, 0.6, 1.5])
    for axis, n in enumerate(values.shape[1:]):
        cells = [
            ((x - BOX["translation"][axis]) / BOX["extents"][axis] + 0.5) * (n - 1) for x in (low[axis], high[axis])
        ]
        start, end = (2 * round(edge) / (n - 1) - 1 for edge in (cells[0] // 1, -(-cells[1] // 1)))
        values = resampled(values, 1 + axis, start, end, n, align_corners=True)
    assert_agrees(values, data["module_grid_cropped"])
    box = {
        "extents": data["module_extents_cropped"].tolist(),
        "translation": data["module_translation_cropped"].tolist(),
    }
    assert_agrees(full(data["module_grid_cropped"][0], **box)(data["module_points"]), data["module_out_cropped"])
    grid = full(data["module_grid_epoch3"][0], **BOX)
    grid.crop(torch.tensor(low), torch.tensor(high))
    assert_agrees(grid.extents, data["module_extents_cropped"])
    assert_agrees(grid.translation, data["module_translation_cropped"])


def test_decoders() -> None:
    data = load("decoders")
    x, z = data["x"], data["z"]
    # Their skip sees another input than the first layer does; ours see both, each with weights of 0 for the other's.
    decoder = MLPDecoder(MLPDecoder.Config(n_layers=3, hidden_dim=6, input_skips=[1]), 12, 4, "relu")
    for row, layer in enumerate(decoder.layers):
        weight, layer.bias.data = data[f"mlp_sd/mlp.{row}.0.weight"], data[f"mlp_sd/mlp.{row}.0.bias"]
        parts = [weight] if row == 2 else [weight, torch.zeros(6, 5)]
        layer.weight.data = torch.cat(parts if row != 1 else [weight[:, :6], torch.zeros(6, 7), weight[:, 6:]], dim=1)
    assert_agrees(decoder(torch.cat([x, z], dim=1)), data["mlp_RELU"])
    for name, operation in {"RELU": "relu", "SOFTPLUS": "softplus", "SIGMOID": "sigmoid", "IDENTITY": "none"}.items():
        config = ElementwiseDecoder.Config(scale=2.0, shift=-0.3, operation=operation)
        assert_agrees(ElementwiseDecoder(config, 7, 7, "relu")(x), data[f"elementwise_{name}"])
