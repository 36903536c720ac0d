"""What is measured: the mesh in a file, or the newest one of a run, with the data set that it was made from."""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets import datasets
from datasets.module import SceneData
from datasets.surfaces import read_mesh
from datasets.views import Views
from systems.automatic import STAND_INS, automatic_keys, decided
from systems.camera_file import CAMERAS
from systems.export import moved
from utils.config import parse, read, resolve, slot
from utils.registry import ConfigError
from utils.types import Mesh


@dataclass
class Measured:
    """A mesh and where it comes from.

    Attributes:
        mesh: in dataset coordinates.
        path: its file.
        run: folder of the run, or None.
        config: configuration that names the data set, or None.
        overrides: `key=value` words that win over it.
    """

    mesh: Mesh
    path: Path
    run: Path | None
    config: Path | None
    overrides: list[str]

    def views(self, split: str, what: str) -> Views:
        """The views of a split of the data set, which `what` needs.

        Raises:
            ConfigError: there is no data set, or it is broken.
        """
        if self.config is None:
            raise ConfigError(f"{what} needs a data set; add --config YAML, or give the folder of a run")
        return self._data.views(split)

    @functools.cached_property
    def _data(self) -> SceneData:
        """Read when it is needed, because files and plug-ins of a run may be gone."""
        assert self.config is not None
        config = read(self.config, self.overrides)
        config = decided(config, {key: STAND_INS[key] for key in automatic_keys(config)})
        resolve(config)
        return SceneData(datasets.make(parse(_DataSection, {"dataset": config.get("dataset")}).dataset))


def read_measured(given: Path, config: Path | None, overrides: list[str]) -> Measured:
    """The mesh at a path.

    Args:
        given: mesh file, or folder of a run.
        config: names the data set; None for the run's own configuration.
        overrides: `key=value` words that win over the configuration.

    Raises:
        ConfigError: there is no mesh.
    """
    if given.is_file():
        return Measured(read_mesh(given), given, None, config, overrides)
    if not given.is_dir():
        raise ConfigError(f"{given} does not exist; expected a mesh file or the folder of a run")
    meshes = [path for path in given.glob("save/it*.obj") if not path.stem.endswith("-textured")]
    if not meshes:
        raise ConfigError(f"{given} holds no mesh save/it*.obj; make one with launch.py --export --resume CKPT")
    path = max(meshes, key=lambda path: (int(re.findall(r"\d+", path.name)[0]), path.stat().st_mtime))
    mesh, cameras = read_mesh(path), given / "save" / CAMERAS
    if cameras.is_file() and (content := json.loads(cameras.read_text()))["coordinates"] == "scene":
        mesh = moved(mesh, torch.tensor(content["scene_to_dataset"], dtype=torch.float64))
    return Measured(mesh, path, given, given / "config" / "parsed.yaml" if config is None else config, overrides)


@dataclass
class _DataSection:
    """The one section of a configuration that matters here."""

    dataset: object = slot(datasets)
