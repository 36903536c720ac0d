"""Measures a mesh, or that of a run, against the truth: see docs/evaluation.md.

    python scripts/evaluate.py RUN                                    the surface that the run's data set knows
    python scripts/evaluate.py RUN --truth points.ply --visible test  what test cameras see, against a file
    python scripts/evaluate.py mesh.ply --truth scan.ply --units m --thresholds 0.01 --crop crop.json --voxel 0.005
    python scripts/evaluate.py RUN --depth test                       the depth maps of the test views
    python scripts/evaluate.py RUN --dtu DTU_DIR --scan 24            the protocol of DTU

A run is a folder such as exp/neus-blender-lego/@20261121-120000; its newest mesh counts, and results go to its
metrics.json. For a mesh, --config CONFIG.yaml and key=value words name the data set where one is needed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.crop_volume import read_crop_volume  # noqa: E402
from datasets.dtu_reference import read_dtu_reference  # noqa: E402
from systems.dtu_protocol import dtu_error  # noqa: E402
from systems.geometry_error import N_POINTS, THRESHOLDS, MeshPoints, geometry_error, threshold  # noqa: E402
from systems.mask_culling import within_masks  # noqa: E402
from systems.measured import Measured, read_measured  # noqa: E402
from systems.truth import cropped, data_truth, depth_truth, file_truth  # noqa: E402
from systems.visibility import seen_points, seen_surface  # noqa: E402
from utils.registry import ConfigError, nearest  # noqa: E402
from utils.run_directory import write_metrics  # noqa: E402
from utils.triangles import draw_points  # noqa: E402
from utils.types import Surface  # noqa: E402

UNITS = ("mm", "cm", "m", "units")
SPLITS = ("train", "val", "test")
LENGTHS = ("accuracy", "completeness", "chamfer")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the options")


def parse_arguments(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options and `key=value` overrides; an unknown option, or one without effect, is a ConfigError."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("reconstruction", type=Path, metavar="MESH_OR_RUN", help="mesh file, or folder of a run")
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument("--truth", type=Path, metavar="FILE", help="mesh or point cloud, in the coordinates of the mesh")
    truth.add_argument("--depth", choices=SPLITS, metavar="SPLIT", help="depth maps of these views of the data set")
    truth.add_argument("--dtu", type=Path, metavar="DIR", help="DTU's own protocol; holds Points/stl and ObsMask")
    parser.add_argument("--scan", type=int, metavar="N", help="number of the scan, with --dtu")
    text = "first drop what masks of the data set, widened by so many pixels, rule out; with --dtu"
    parser.add_argument("--cull", type=float, metavar="PIXELS", help=text)
    text = "only what cameras of these views of the data set see counts"
    parser.add_argument("--visible", choices=SPLITS, metavar="SPLIT", help=text)
    text = "lengths, or percents of the truth's diameter (default 0.5%% 1%%)"
    parser.add_argument("--thresholds", nargs="+", metavar="LENGTH", help=text)
    parser.add_argument("--crop", type=Path, metavar="JSON", help="only what is in this crop volume counts")
    parser.add_argument(
        "--voxel", type=float, metavar="SIZE", help="average the points of --truth in cubes of this side"
    )
    text = f"what one unit of the coordinates is: {', '.join(UNITS)} (default units); a name, nothing is converted"
    parser.add_argument("--units", choices=UNITS, metavar="UNIT", help=text)
    parser.add_argument("--points", type=int, metavar="N", help=f"points on the mesh (default {N_POINTS:,})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random points and orders (default 0)")
    parser.add_argument("--config", type=Path, metavar="YAML", help="names the data set of a mesh")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for metrics.json; default: the run's")
    arguments, rest = parser.parse_known_args(words)
    for word in rest:
        if word.startswith("-"):
            hint = nearest(word, list(parser._option_string_actions))
            raise ConfigError(f"unknown option {word}{hint}; --help lists the options")
    _check(arguments, rest)
    return arguments, rest


def _check(arguments: argparse.Namespace, overrides: list[str]) -> None:
    general = [name for name in ("visible", "thresholds", "crop", "units", "points") if getattr(arguments, name)]
    if arguments.dtu is not None:
        if arguments.scan is None:
            raise ConfigError("--dtu needs the number of the scan: add --scan 24")
        if general:
            raise ConfigError(f"--{general[0]} has no effect with --dtu, whose protocol is fixed; leave it out")
    elif arguments.scan is not None or arguments.cull is not None:
        raise ConfigError(f"--{'scan' if arguments.cull is None else 'cull'} has no effect without --dtu DIR")
    if arguments.voxel is not None and arguments.truth is None:
        raise ConfigError("--voxel has no effect without --truth FILE")
    for name in ("points", "voxel"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} {value}: expected a positive number")
    if arguments.cull is not None and not arguments.cull >= 0:
        raise ConfigError(f"--cull {arguments.cull:g}: expected 0 pixels or more")
    for word in arguments.thresholds or ():
        threshold(word, 1.0)
    needs_data = arguments.visible or arguments.depth or arguments.cull is not None
    if not needs_data and (arguments.truth is not None or arguments.dtu is not None):
        if arguments.config is not None or overrides:
            word = "--config" if arguments.config is not None else overrides[0]
            raise ConfigError(f"{word} has no effect: no data set is needed; leave it out")
    if overrides and arguments.config is None and not arguments.reconstruction.is_dir():
        raise ConfigError(f"{overrides[0]} has no effect without --config YAML")


def find_truth(arguments: argparse.Namespace, measured: Measured) -> tuple[Surface, str]:
    """The true surface in dataset coordinates, and what it is."""
    if arguments.truth is not None:
        return file_truth(arguments.truth, arguments.voxel), str(arguments.truth.resolve())
    if arguments.depth is not None:
        views = measured.views(arguments.depth, f"--depth {arguments.depth}")
        return depth_truth(views, arguments.seed), f"depth maps, {arguments.depth}"
    return data_truth(measured.views("test", "evaluating without --truth FILE")), "the data set's surface"


def evaluate(arguments: argparse.Namespace, measured: Measured) -> dict[str, Any]:
    """The section of metrics.json for a general truth."""
    mesh, n_points, seed = measured.mesh, arguments.points or N_POINTS, arguments.seed
    truth, what = find_truth(arguments, measured)
    if arguments.visible is None:
        drawn = MeshPoints(*draw_points(mesh, n_points, seed))
    else:
        views = measured.views(arguments.visible, f"--visible {arguments.visible}")
        drawn = seen_points(mesh, views, n_points, seed)
        truth = seen_surface(truth, views, n_points, seed)
    if arguments.crop is not None:
        volume = read_crop_volume(arguments.crop)
        truth, inside = cropped(truth, volume), volume.holds(drawn.position)
        drawn = MeshPoints(drawn.position[inside], drawn.face[inside])
        if not inside.any():
            raise ConfigError("--crop leaves nothing of the mesh; check that both are in the same coordinates")
    head = {
        "truth": what,
        "units": arguments.units or "units",
        "visible": arguments.visible,
        "crop": None if arguments.crop is None else str(arguments.crop.resolve()),
        "voxel": arguments.voxel,
        "seed": seed,
    }
    head = {name: value for name, value in head.items() if value is not None}
    return head | geometry_error(mesh, truth, arguments.thresholds or THRESHOLDS, drawn)


def evaluate_dtu(arguments: argparse.Namespace, measured: Measured) -> dict[str, Any]:
    """The section of metrics.json for the protocol of DTU."""
    reference, mesh = read_dtu_reference(arguments.dtu, arguments.scan), measured.mesh
    if arguments.cull is not None:
        mesh = within_masks(mesh, measured.views("train", "--cull"), arguments.cull)
    head = {"protocol": "DTU", "units": "mm", "scan": arguments.scan}
    head |= {} if arguments.cull is None else {"mask_margin_pixels": arguments.cull}
    return head | dtu_error(mesh, reference, arguments.seed)


def table(section: dict[str, Any]) -> Table:
    """The numbers of a section for people, with their units."""
    shown, units = Table(title=_title(section)), section["units"]
    for heading in ("metric", "value", "unit"):
        shown.add_column(heading, justify="right" if heading == "value" else "left")
    for name in LENGTHS:
        shown.add_row(name, f"{section[name]:.5g}", units)
    if "normal_consistency" in section:
        shown.add_row("normal consistency", f"{section['normal_consistency']:.4f}", "mean |cosine|")
    for word, length in section.get("thresholds", {}).items():
        place = f"within {word}" + (f", {length:.4g} {units}" if word.endswith("%") else f" {units}")
        for name in ("precision", "recall", "f_score"):
            shown.add_row(f"{name.replace('_', '-')}, {place}", f"{section[f'{name}@{word}']:.4f}", "share")
    for name, text in (("n_points", "points of the mesh"), ("n_truth_points", "points of the truth")):
        shown.add_row(text, f"{section[name]:,}", "")
    if section.get("truth_spacing"):
        shown.add_row("spacing of the points that accuracy is to", f"{section['truth_spacing']:.4g}", units)
    return shown


def _title(section: dict[str, Any]) -> str:
    if "scan" in section:
        margin = section.get("mask_margin_pixels")
        return f"DTU protocol, scan {section['scan']}" + ("" if margin is None else f", masks widened by {margin:g} px")
    seen = f", what {section['visible']} views see" if "visible" in section else ""
    return f"against {section['truth']}{seen}"


def peak_memory() -> str:
    """The most memory that this process has held; nothing where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f} GB"


def main(words: list[str]) -> int:
    """Exit code: 0, 2 after a mistake of the user's, told in one line, or 130 after Ctrl-C."""
    try:
        arguments, overrides = parse_arguments(words)
        measured = read_measured(arguments.reconstruction, arguments.config, overrides)
        is_dtu = arguments.dtu is not None
        section = evaluate_dtu(arguments, measured) if is_dtu else evaluate(arguments, measured)
        section = {"mesh": str(measured.path.resolve())} | section
        name = "dtu" if is_dtu else "geometry" if arguments.visible is None else "geometry_visible"
        Console().print(table(section))
        print(peak_memory())
        folder = arguments.output or measured.run
        if folder is not None:
            print(write_metrics(folder, {name: section}).resolve())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ConfigError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
