"""The folder of one run, `<exp_dir>/<name>/<tag>@<date>-<time>`, and what is written there besides images and meshes.

config/parsed.yaml   the whole configuration as the run saw it, ready for --config
config/raw.yaml      copy of the file given by --config
code/                the sources at the start of the training
ckpt/ save/          checkpoints; pictures of the scene, images, videos, meshes and their cameras
csv_logs/            logged numbers
metrics.json         final results
"""

import contextlib
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from utils.notice import notice
from utils.registry import ConfigError

_FOLDERS = ("save", "ckpt", "code", "config")
_TRIAL, _SEED = "INSTANT_SURFACES_TRIAL", "INSTANT_SURFACES_SEED"
# A snapshot is for sources: data that lies about untracked must not be copied into every run.
_LARGEST_FILE, _LARGEST_SNAPSHOT = 1 << 20, 1 << 26


def add_run_keys(config: DictConfig, arguments: dict[str, Any], overrides: Sequence[str] = ()) -> None:
    """Adds the seed and the folders of a run to its configuration; those already there stay.

    A parsed.yaml has them all, so evaluating or resuming with it goes on in its folder. A new training with it gets
    a folder of its own.

    Args:
        config: needs `name`; `tag` and `seed` are optional.
        arguments: the parsed command line, recorded as `cmd_args`; its `exp_dir` is the root of all runs.
        overrides: its `key=value` words; a folder given there always stays.

    Raises:
        ConfigError: no name, or another root than the run has that goes on.
    """
    if not config.get("name"):
        raise ConfigError("name is required: add name=VALUE to the command line")
    is_new = arguments["train"] and (arguments["resume"] is None or arguments["resume_weights_only"])
    if is_new and "cmd_args" in config:
        given = {override.partition("=")[0] for override in overrides}
        for key in {"trial_name", "exp_dir", *(f"{kind}_dir" for kind in _FOLDERS)} - given:
            config.pop(key, None)
    config.cmd_args = arguments
    # The processes of other devices start later than the first and inherit its environment: one run, one folder.
    stamp = os.environ.setdefault(_TRIAL, time.strftime("@%Y%m%d-%H%M%S"))
    config.setdefault("seed", int(os.environ.setdefault(_SEED, str(int(time.time() * 1000) % 1000))))
    config.setdefault("trial_name", f"{config.get('tag') or ''}{stamp}")
    asked = Path(arguments["exp_dir"] or "./exp") / str(config.name)
    if arguments["exp_dir"] and Path(config.get("exp_dir", asked)).resolve() != asked.resolve():
        raise ConfigError(
            f"--exp_dir {arguments['exp_dir']} has no effect: the run of this configuration goes on in "
            f"{config.exp_dir}; remove it, or choose a folder by save_dir=DIR"
        )
    config.setdefault("exp_dir", str(asked))
    trial = Path(config.exp_dir) / config.trial_name
    for kind in _FOLDERS:
        config.setdefault(f"{kind}_dir", str(trial / kind))


def make_run_directory(config: DictConfig, raw: Path, runs_dir: Path | None = None) -> None:
    """Creates the folders and writes both configurations.

    Args:
        config: with the keys of `add_run_keys`.
        raw: the file it was loaded from; the copy of an earlier start in the same folder stays.
        runs_dir: folder of TensorBoard's logs, to be created too; None where nothing is trained, and then the
            configurations of the training stay as well.

    Raises:
        ConfigError: a folder cannot be written.
    """
    parsed, copy = (Path(config.config_dir) / name for name in ("parsed.yaml", "raw.yaml"))
    make_folders(Path(config.save_dir), parsed.parent, *([] if runs_dir is None else [Path(config.ckpt_dir), runs_dir]))
    with _told():
        if not copy.exists():
            copy.write_bytes(raw.read_bytes())
        if runs_dir is not None or not parsed.exists():
            parsed.write_text(OmegaConf.to_yaml(config))


def make_folders(*folders: Path) -> None:
    """Creates folders that files shall be written to.

    Raises:
        ConfigError: they cannot.
    """
    with _told():
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            # An existing folder may still be read-only.
            tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What cannot be written is a mistake of the user's."""
    try:
        yield
    except OSError as error:
        remedy = "choose another folder with --exp_dir and --runs_dir"
        raise ConfigError(f"{error.filename}: cannot be written ({error.strerror}); {remedy}") from error


def snapshot_code(source: Path, target: Path) -> None:
    """Copies the tracked and the new, not ignored files of a git work tree; failing only gives a notice."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(listing, cwd=source, capture_output=True, check=True, timeout=30)
        total, left_out = 0, []
        for name in sorted(set(found.stdout.decode().split("\0")) - {""}):
            file = source / name
            size = file.stat().st_size if file.is_file() else 0
            if not file.is_file():
                continue
            if size > _LARGEST_FILE or total + size > _LARGEST_SNAPSHOT:
                left_out.append(name)
                continue
            total += size
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / name)
        if left_out:
            notice(f"{len(left_out)} large files are not in the code snapshot, first {left_out[0]}")
    except (OSError, subprocess.SubprocessError, UnicodeError) as error:
        notice(f"no code snapshot: {str(error).splitlines()[0]}")


def write_metrics(folder: Path, sections: dict[str, Any]) -> Path:
    """Adds sections to `metrics.json` of a folder, atomically.

    Args:
        folder: of the run.
        sections: numbers, texts, lists and mappings by name; they replace sections of the same name. Numbers that
            JSON cannot write (NaN, infinities) become null.

    Returns:
        Path of the file.
    """
    path = Path(folder) / "metrics.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".json.part")
    draft.write_text(json.dumps(before | _finite(sections), indent=2) + "\n")
    os.replace(draft, path)
    return path


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    # Scalars of numpy and torch.
    return _finite(value.item()) if hasattr(value, "item") else value
