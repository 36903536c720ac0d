"""Times how a trained field becomes a mesh: bricks that can hold the surface against the whole grid.

    python scripts/bench_mesh.py exp/demo/@20261121-120000                    at 128, 256 and 512 nodes per axis
    python scripts/bench_mesh.py RUN --resolutions 256 --rounds 3 --into docs/meshes.md

`ours` is what every export does. `all bricks` is the same without knowing where the surface can be. `plain` asks the
field at every node of the same box and hands the grid to scikit-image, as it is usually done. All take turns in one
process, and their meshes are compared. Nothing is cleaned, coloured or textured.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path

# Threads that spin while they wait starve the others; must be there before torch is.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# The repository is no installed package.
import skimage.measure  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from launch import set_environment, set_verbosity  # noqa: E402
from models.base import Model  # noqa: E402
from models.mesh import MARGIN, extract, extract_surface  # noqa: E402
from scripts.bench import report  # noqa: E402
from scripts.bench.timing import take_turns  # noqa: E402
from systems import systems  # noqa: E402
from systems.experiment import Experiment  # noqa: E402
from systems.trainer import read_checkpoint  # noqa: E402
from utils.config import load, parse  # noqa: E402
from utils.registry import ConfigError  # noqa: E402

OURS, ALL, PLAIN = "ours", "all bricks", "plain"


@dataclass
class Extraction:
    """What one way to extract has done.

    Attributes:
        n_faces: of the mesh.
        n_asked: points at which the field was asked.
        lower, upper: [3] corners of the box around the mesh, world units.
    """

    n_faces: int
    n_asked: int
    lower: Tensor
    upper: Tensor


class Counted:
    """A model's level, counting the points that it is asked at."""

    def __init__(self, model: Model):
        self.model, self.n = model, 0

    def __call__(self, points: Tensor) -> Tensor:
        self.n += len(points)
        with torch.no_grad():
            return self.model.level(points)


def ways(model: Model, resolution: int) -> dict[str, Callable[[], Extraction]]:
    """The three ways, which mesh the same box."""
    options = model.isosurface
    assert options is not None

    def ours() -> Extraction:
        level = Counted(model)
        may_hold = model.may_hold_surface
        mesh = extract_surface(
            level, model.radius, resolution, options.chunk, options.method, model.is_distance, may_hold
        )
        return _found(mesh.vertices, mesh.faces, level)

    whole = ours()
    # The box that extract_surface finds for itself with a coarse grid.
    margin = MARGIN * (whole.upper - whole.lower)
    box = torch.stack([whole.lower - margin, whole.upper + margin]).clamp(-model.radius, model.radius)

    def everything() -> Extraction:
        level = Counted(model)
        mesh = extract(level, box, resolution, options.chunk, options.method)
        return _found(mesh.vertices, mesh.faces, level)

    def plain() -> Extraction:
        level = Counted(model)
        axes = [torch.linspace(float(low), float(high), resolution) for low, high in box.T]
        n_rows = max(1, options.chunk // resolution**2)
        slabs = [level(torch.cartesian_prod(x, axes[1], axes[2])) for x in axes[0].split(n_rows)]
        grid = torch.cat(slabs).view(resolution, resolution, resolution)
        step = ((box[1] - box[0]) / (resolution - 1)).tolist()
        vertices, faces, *_ = skimage.measure.marching_cubes(grid.numpy(), 0.0, spacing=step)
        return _found(torch.from_numpy(vertices).float() + box[0], faces, level)

    return {OURS: ours, ALL: everything, PLAIN: plain}


def _found(vertices: Tensor, faces: Sized, level: Counted) -> Extraction:
    return Extraction(len(faces), level.n, vertices.amin(0), vertices.amax(0))


def read_model(run: Path) -> Model:
    """The trained model of a run.

    Raises:
        ConfigError: it has no configuration or checkpoint, or no surface.
    """
    config_path, checkpoint_path = run / "config/parsed.yaml", run / "ckpt/last.ckpt"
    for path in (config_path, checkpoint_path):
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; give the folder of a run, such as exp/demo/@20261121-120000")
    experiment = parse(Experiment, load(config_path, []))
    system = systems.make(experiment.system, experiment)
    system.load_state_dict(read_checkpoint(checkpoint_path, system)["state_dict"])
    model: Model = system.model.eval()
    model.update(int(system.step.item()), experiment.seed)
    if model.isosurface is None:
        raise ConfigError(f"{run}: its field has no surface")
    return model


def rows(model: Model, resolutions: list[int], rounds: int) -> list[list[str]]:
    """Cells of the table, a row for every resolution and way."""
    found = []
    for resolution in resolutions:
        results: dict[str, Extraction] = {}
        jobs = {name: functools.partial(_keep, results, name, job) for name, job in ways(model, resolution).items()}
        times = take_turns(jobs, rounds, torch.device("cpu"))
        for name, result in results.items():
            seconds, share = times[name].median / 1e3, result.n_asked / resolution**3
            ratio = times[name].median / times[OURS].median
            cells = [report.number(seconds), f"{ratio:.1f}", f"{result.n_asked:,}", f"{100 * share:.0f} %"]
            found.append([f"{resolution}³, {name}", *cells, f"{result.n_faces:,}"])
    return found


def _keep(results: dict[str, Extraction], name: str, job: Callable[[], Extraction]) -> None:
    results[name] = job()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[128, 256, 512], metavar="N")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="turns of each, after one to warm up")
    parser.add_argument("--into", type=Path, metavar="FILE", help="replace the table in a Markdown file")
    arguments = parser.parse_args(words)
    set_environment("none")
    set_verbosity(False, True)
    try:
        model = read_model(arguments.run)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    machine = report.describe(torch.device("cpu"))
    header = ["nodes, way", "s", "times as long", "points asked", "of the grid", "faces"]
    text = f"{report.sentence(machine)}\n\n" + report.table(
        header, rows(model, arguments.resolutions, arguments.rounds)
    )
    print(text)
    if arguments.into:
        report.replace_section(arguments.into, "bench_mesh", text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
