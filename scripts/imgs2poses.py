"""Cameras for photographs that have none: a folder of photographs, or a video, in; a COLMAP project to train on out.

    python scripts/imgs2poses.py PHOTOS
    python scripts/imgs2poses.py VIDEO.mp4 --frames 150
    python scripts/imgs2poses.py PHOTOS --train

pycolmap finds the cameras on the CPU: SIFT features, matches of image pairs, incremental mapping (Schonberger and
Frahm 2016, Structure-from-Motion Revisited). The output folder gets `images/`, upright, `sparse/0/`, `masks/` where
there is something to make them of, and `imgs2poses.json` with the settings and the figures of the printed table.
With `--train` the training that makes the textured mesh follows at once.
"""

import argparse
import hashlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.image_folder import SUFFIXES, MaskSource, extract_frames, store_photographs  # noqa: E402
from scripts.structure_from_motion import reconstruct, some, undistort, unregistered  # noqa: E402
from utils.registry import ConfigError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
TRAINING = "configs/neus-colmap-fast.yaml"
CAMERA_MODELS = (
    "SIMPLE_PINHOLE PINHOLE SIMPLE_RADIAL RADIAL OPENCV FULL_OPENCV OPENCV_FISHEYE SIMPLE_RADIAL_FISHEYE RADIAL_FISHEYE"
).split()


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the options")


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """The options; an unknown one, or one without effect, is a ConfigError."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("source", type=Path, metavar="PHOTOS_OR_VIDEO", help="folder of photographs, or a video file")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: NAME-posed beside the source")
    parser.add_argument("--frames", type=int, metavar="N", help="frames to take from a video (default 100)")
    text = "pairs to compare: all (default for photographs) or of neighbours (default for videos)"
    parser.add_argument("--match", choices=("exhaustive", "sequential"), help=text)
    text = f"the lens: {', '.join(CAMERA_MODELS)} (default OPENCV, where images are few SIMPLE_RADIAL)"
    parser.add_argument("--camera-model", choices=CAMERA_MODELS, metavar="MODEL", help=text)
    parser.add_argument("--undistort", action="store_true", help="write images as a lens without distortion sees them")
    masks = parser.add_mutually_exclusive_group()
    masks.add_argument("--masks", type=Path, metavar="DIR", help="grey images named as the photographs, 255 = object")
    masks.add_argument("--background-color", type=_color, metavar="R,G,B", help="what has this colour is background")
    text = "largest difference from the background colour in any channel (default 10 of 255)"
    parser.add_argument("--tolerance", type=int, metavar="N", help=text)
    text = "the object turned before a standing camera: only features inside the masks count"
    parser.add_argument("--turntable", action="store_true", help=text)
    text = f"go on to the textured mesh, with this configuration (default {TRAINING})"
    parser.add_argument("--train", nargs="?", const=TRAINING, metavar="YAML", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace what the output folder holds")
    arguments = parser.parse_args(words)
    if arguments.tolerance is not None and arguments.background_color is None:
        raise ConfigError("--tolerance has no effect without --background-color R,G,B")
    if arguments.masks is not None and not arguments.masks.is_dir():
        raise ConfigError(f"--masks {arguments.masks}: no such folder")
    if arguments.frames is not None and arguments.frames < 3:
        raise ConfigError(f"--frames {arguments.frames}: cameras need at least 3 images")
    return arguments


def build(arguments: argparse.Namespace) -> Path:
    """Makes the project and prints what came of it; if it is there already, only prints. Returns its folder.

    Raises:
        ConfigError: a bad source or output folder, bad masks, or too few images that register.
    """
    if importlib.util.find_spec("pycolmap") is None:
        raise ConfigError("pycolmap, which finds the cameras, is not installed: pip install 'pycolmap>=4.2'")
    begun = time.monotonic()
    sources = find_sources(arguments)
    source = arguments.source.resolve()
    folder = arguments.output or source.with_name(f"{source.stem}-posed")
    settings = {
        name: str(value) for name, value in vars(arguments).items() if name not in ("output", "overwrite", "train")
    }
    mask_files = [] if arguments.masks is None else sorted(arguments.masks.glob("*"))
    settings |= {"source": str(source), "fingerprint": fingerprint([*sources, *mask_files])}
    result = earlier_result(folder, settings, [sources[0], arguments.masks], arguments.overwrite)
    if result is None:
        record = folder / "imgs2poses.json"
        record.write_text(json.dumps({"settings": settings}, indent=1))
        result = make(sources, folder, arguments)
        result["minutes"] = round((time.monotonic() - begun) / 60, 2)
        record.write_text(json.dumps({"settings": settings, "result": result}, indent=1))
    report(result, folder)
    return folder


def make(sources: list[Path], folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images, features, matches, cameras; returns the figures of the result."""
    tolerance = 10 if arguments.tolerance is None else arguments.tolerance
    masks = MaskSource(arguments.masks, arguments.background_color, tolerance)
    is_video = sources[0].suffix.lower() not in SUFFIXES
    if is_video:
        sources = extract_frames(sources[0], folder / "work" / "frames", arguments.frames or 100)
    images = store_photographs(sources, folder, masks)
    if arguments.turntable and not (folder / "masks").exists():
        raise ConfigError("--turntable needs masks: --masks DIR, --background-color R,G,B or transparent photographs")
    match = arguments.match or ("sequential" if is_video else "exhaustive")
    model = reconstruct(folder, images, match, arguments.camera_model, arguments.turntable)
    if arguments.undistort:
        model = undistort(folder)
    shutil.rmtree(folder / "work")
    return {
        "registered": model.num_reg_images(),
        "images": len(images),
        "missing": unregistered(model, [image.name for image in images]),
        "cameras": Counter(camera.model.name for camera in model.cameras.values()),
        "points": model.num_points3D(),
        "reprojection_error": round(model.compute_mean_reprojection_error(), 3),
    }


def find_sources(arguments: argparse.Namespace) -> list[Path]:
    """The photographs in their natural order, 9 before 10, or the one video.

    Raises:
        ConfigError: there is nothing, too little, or an option does not go with it.
    """
    source = arguments.source
    if source.is_file() and source.suffix.lower() not in SUFFIXES:
        if arguments.masks is not None:
            raise ConfigError("--masks: which frames a video gives is not known before; use --background-color R,G,B")
        return [source]
    if not source.is_dir():
        raise ConfigError(f"{source}: expected a folder of photographs or a video file")
    if arguments.frames is not None:
        raise ConfigError(f"--frames has no effect: {source} is a folder, not a video")
    # A COLMAP project has its photographs one level down.
    folders = (source, source / "images")
    found = ([path for path in folder.glob("[!.]*") if path.suffix.lower() in SUFFIXES] for folder in folders)
    paths = next(filter(None, found), [])
    if not paths:
        others = sorted({path.suffix.lower() for path in source.glob("[!.]*.*")})
        hint = f" (but {', '.join(others)}: convert them to JPEG)" if others else ""
        raise ConfigError(f"{source} holds no photographs{hint}; expected {', '.join(SUFFIXES)}")
    if len(paths) < 3:
        raise ConfigError(f"{source} holds {len(paths)} photographs; cameras need at least 3, and 30 to 100 are usual")
    return sorted(paths, key=lambda path: [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", path.name)])


def fingerprint(paths: list[Path]) -> str:
    """Changes with the names, sizes and dates of files."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def earlier_result(
    folder: Path, settings: dict[str, str], inputs: list[Path | None], is_overwriting: bool
) -> dict[str, Any] | None:
    """The figures that a run with the same settings left in the folder; without one, an empty place for a new run.

    Raises:
        ConfigError: the folder holds an input, or something that only --overwrite may replace.
    """
    record = folder / "imgs2poses.json"
    earlier = json.loads(record.read_text()) if record.is_file() else {}
    if not is_overwriting and "result" in earlier and earlier["settings"] == settings:
        print(f"{folder} is complete already; --overwrite makes it anew")
        return earlier["result"]
    products = [folder / name for name in ("images", "masks", "sparse", "work")]
    for one in inputs:
        if one is not None and any(one.resolve().is_relative_to(product.resolve()) for product in products):
            raise ConfigError(f"--output {folder} would replace {one}; give another folder")
    there = [product.name for product in products if product.exists()]
    # What a failed or interrupted run left has settings, but no result, and may go.
    if there and not is_overwriting and (not earlier or "result" in earlier):
        what = "the result of other settings" if earlier else f"{', '.join(there)} of another origin"
        raise ConfigError(f"{folder} holds {what}; add --overwrite to replace it, or --output DIR")
    for product in products:
        shutil.rmtree(product, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return None


def report(result: dict[str, Any], folder: Path) -> None:
    """Prints a table of the result, and the command that trains on it."""
    table = Table(show_header=False)
    table.add_row("images registered", f"{result['registered']} of {result['images']}")
    table.add_row("cameras", ", ".join(f"{n} {model}" for model, n in result["cameras"].items()))
    table.add_row("points", f"{result['points']:,}")
    table.add_row("mean reprojection error", f"{result['reprojection_error']:.2f} pixels")
    table.add_row("time", f"{result['minutes']:.1f} minutes")
    Console().print(table)
    if result["missing"]:
        print(f"no camera was found for {some(result['missing'])}; they are not trained on")
    here, place = Path.cwd(), folder.resolve()
    place = place.relative_to(here) if place.is_relative_to(here) else place
    print(shlex.join(["python", *training_words(TRAINING, place)]))


def training_words(config: str, place: Path) -> list[str]:
    """What Python is given, in the root of the repository, to train on a project."""
    return ["launch.py", "--config", config, "--train", f"dataset.root_dir={place}"]


def _color(text: str) -> tuple[int, int, int]:
    values = [int(word) for word in text.split(",")]
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise ValueError
    return values[0], values[1], values[2]


def main(words: list[str]) -> int:
    """Exit code: 0, 2 after a mistake of the user's, told in one line, 130 after Ctrl-C, or that of the training."""
    try:
        arguments = parse_arguments(words)
        folder = build(arguments)
        if arguments.train is not None:
            words = training_words(arguments.train, folder.resolve())
            return subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
