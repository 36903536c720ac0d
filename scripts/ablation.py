"""What each ingredient of a surface is worth: a training per row, all of equal samples, and one table.

    python scripts/ablation.py                                       on the synthetic scene
    python scripts/ablation.py --scene load/nerf_synthetic/lego --surface pseudo_gt_points.ply
    python scripts/ablation.py --rows base volsdf --steps 500        some rows, shorter
    python scripts/ablation.py trainer.log_every_n_steps=10          key=value words change all rows

A row is a preset, demo or neus-blender-fast, with a few keys changed; its run lies in
<exp_dir>/<scene>-<steps>/<row>. Surfaces are measured where test views see them, see docs/evaluation.md. Rows that are
done are skipped, and one that was interrupted goes on from its last checkpoint: after Ctrl-C start the same command
again. A step has as many samples in every row, so rows differ in the time they take: about 4 minutes on two CPU cores,
with finite differences two to three times that.
"""

import argparse
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts import summarize  # noqa: E402
from utils.registry import ConfigError, nearest  # noqa: E402

COLUMNS = {
    "test.psnr": "PSNR, dB",
    "geometry_visible.chamfer": "Chamfer, scene units",
    "geometry_visible.chamfer_percent": "Chamfer, % of diameter",
    "geometry_visible.f_score@0.5%": "F-score at 0.5 %",
    "geometry_visible.normal_consistency": "normal consistency",
    "training.steps_per_second": "steps/s",
    "training.minutes": "minutes",
}
INTERRUPTED = 130


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: of its folder.
        meaning: what differs from the first row.
        keys: what to change in the preset.
    """

    name: str
    meaning: str
    keys: tuple[str, ...] = ()


def variants(n_steps: int) -> list[Variant]:
    """All rows of trainings of so many steps."""
    levels = "model.geometry.xyz_encoding_config"
    added = f"{levels}.update_steps={max(n_steps // 20, 1)}"
    progressive = (f"{levels}.otype=ProgressiveBandHashGrid", f"{levels}.start_level=4", added)
    shrinking = (*progressive, "model.geometry.finite_difference_eps=progressive")
    finite = (*shrinking, "model.geometry.grad_type=finite_difference")
    # Weights are those of the papers for an object of about unit size; warmed up in the first twentieth.
    ramp = max(n_steps // 20, 1)
    curvature = (f"system.loss.lambda_curvature=[0,0.0,5.0e-4,{ramp}]", "system.loss.curvature_decay=1.0")
    tangent = ("model.num_neighbors=2048", f"system.loss.lambda_tangent_curvature=[0,0.0,1.0,{ramp}]", *shrinking)
    no_mask = "system.loss.lambda_mask=0.0"
    alone = (no_mask, "system.loss.lambda_opaque=0.1", "system.loss.lambda_sparsity=0.01")
    return [
        Variant("base", "the preset"),
        Variant("progressive", "progressive levels", progressive),
        Variant("finite-differences", "progressive levels, gradients by finite differences", finite),
        Variant("curvature", "the same with curvature loss (Neuralangelo)", (*finite, *curvature)),
        Variant("tangent-curvature", "progressive levels, curvature loss of normals (PermutoSDF)", tangent),
        Variant("volsdf", "VolSDF opacity", ("model.opacity.name=volsdf", "model.cos_anneal_end=0")),
        Variant("no-culling", "samples without weight kept", ("model.min_weight=0.0",)),
        Variant("no-probes", "eikonal at samples only", ("model.num_probes=0", "system.loss.lambda_empty=0.0")),
        Variant("no-mask", "no mask loss", (no_mask,)),
        Variant("opaque-sparsity", "opaque and sparsity losses instead of the mask's", alone),
        Variant("no-annealing", "no annealing of the cosine", ("model.cos_anneal_end=0",)),
        Variant("even-steps", "steps that do not follow the sharpness", ("model.adaptive_step=false",)),
    ]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the options")


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """The options; `keys` are those for all rows, `chosen` the rows."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="changes of all rows")
    parser.add_argument("--scene", type=Path, metavar="DIR", help="a Blender scene (default: the synthetic one)")
    parser.add_argument("--surface", metavar="FILE", help="its true surface, relative to the scene")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="rows to train (default: all)")
    parser.add_argument("--steps", type=int, default=4500, metavar="N", help="steps of a training (default 4500)")
    parser.add_argument("--exp_dir", type=Path, default=Path("exp/ablation"), metavar="DIR", help="root of the runs")
    parser.add_argument("--gpu", metavar="IDS", help="as for launch.py")
    arguments = parser.parse_intermixed_args(words)
    if arguments.steps < 1:
        raise ConfigError(f"--steps {arguments.steps}: expected at least 1")
    if arguments.scene is not None and not arguments.scene.is_dir():
        raise ConfigError(f"--scene {arguments.scene}: no such folder")
    if arguments.scene is None and arguments.surface is not None:
        raise ConfigError("--surface has no effect on the synthetic scene, whose surface is known; remove it")
    every = variants(arguments.steps)
    known = [variant.name for variant in every]
    for name in arguments.rows or []:
        if name not in known:
            raise ConfigError(f"--rows {name}: unknown{nearest(name, known)}; known: {', '.join(known)}")
    arguments.chosen = [variant for variant in every if variant.name in (arguments.rows or known)]
    return arguments


def scene_keys(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """Name of the preset, and the keys that name its scene."""
    if arguments.scene is None:
        return "demo", []
    scene = arguments.scene.resolve()
    keys = [f"dataset.root_dir={scene}", f"dataset.scene={scene.name}"]
    return "neus-blender-fast", [*keys, *([f"dataset.surface_file={arguments.surface}"] if arguments.surface else [])]


def finished(folder: Path, section: str) -> Path | None:
    """The run of a row that is through with a section of metrics.json: `test` is the last one of a training."""
    for path in sorted(folder.glob("*/metrics.json")):
        if section in json.loads(path.read_text()):
            return path.parent
    return None


def command(variant: Variant, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """What trains a row, or goes on with its training."""
    places = ["--exp_dir", str(folder.parent), "--runs_dir", str(folder.parent / "runs")]
    start = [sys.executable, str(ROOT / "launch.py"), "--train", *places]
    start += ["--gpu", arguments.gpu] if arguments.gpu else []
    checkpoints = sorted(folder.glob("*/ckpt/last.ckpt"))
    if checkpoints:
        last = checkpoints[-1]
        return [*start, "--config", str(last.parents[1] / "config/parsed.yaml"), "--resume", str(last)]
    preset, keys = scene_keys(arguments)
    keys += [f"name={variant.name}", f"trainer.max_steps={arguments.steps}", "trainer.limit_val_batches=0"]
    # Geometry and pictures are measured, textures are not.
    keys += ["export.texture_size=0", *variant.keys, *arguments.keys]
    return [*start, "--config", str(ROOT / f"configs/{preset}.yaml"), *keys]


def measurement(path: Path) -> list[str]:
    """What compares the surface of a run with the true one."""
    return [sys.executable, str(ROOT / "scripts/evaluate.py"), str(path), "--visible", "test"]


def run(words: list[str]) -> int:
    """Exit code of a command. Ctrl-C reaches it once, and it is given the time to save its checkpoint."""
    with subprocess.Popen(words, cwd=ROOT, start_new_session=True) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            child.wait()
            return INTERRUPTED


def complete(title: str, variant: Variant, folder: Path, arguments: argparse.Namespace) -> list[int]:
    """Exit codes of what a row still lacks: its training, and the measurement where the true surface is known."""
    codes = []
    if finished(folder, "test") is None:
        print(title, flush=True)
        codes.append(run(command(variant, folder, arguments)))
    trained = finished(folder, "geometry")
    if trained is not None and not any(codes) and finished(folder, "geometry_visible") is None:
        print(f"{title}: measuring", flush=True)
        codes.append(run(measurement(trained)))
    return codes


def write_table(folder: Path, chosen: list[Variant]) -> None:
    """Prints the rows that are done, and writes them to table.md and table.csv."""
    done = {variant: run for variant in chosen if (run := finished(folder / variant.name, "test"))}
    without = [f"{variant.name}: not finished" for variant in chosen if variant not in done]
    rows = []
    for variant, path in done.items():
        values = summarize.read_rows([path])[0][0].values
        named = {title: values[name] for name, title in COLUMNS.items() if name in values}
        rows.append(summarize.Row(f"{variant.name}: {variant.meaning}", named))
    columns = [title for title in COLUMNS.values() if any(title in row.values for row in rows)]
    text = summarize.markdown(rows, columns, without)
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(text + "\n")
    summarize.write_csv(folder / "table.csv", rows, columns)
    print((folder / "table.md").resolve(), (folder / "table.csv").resolve(), sep="\n")


def main(words: list[str]) -> int:
    """Exit code: 0; 1 if a row failed; 2 after a mistake of the user's, told in one line; 130 after Ctrl-C."""
    try:
        arguments = parse_arguments(words)
        scene = "synthetic" if arguments.scene is None else arguments.scene.resolve().name
        folder = arguments.exp_dir.resolve() / f"{scene}-{arguments.steps}"
        codes = []
        for number, variant in enumerate(arguments.chosen, start=1):
            title = f"row {number} of {len(arguments.chosen)}, {variant.name}: {variant.meaning}"
            codes += complete(title, variant, folder / variant.name, arguments)
            if INTERRUPTED in codes:
                break
        write_table(folder, arguments.chosen)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        codes = [INTERRUPTED]
    if INTERRUPTED in codes:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
