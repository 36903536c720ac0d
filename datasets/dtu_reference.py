"""The scans that DTU's surfaces are scored against: SampleSet.zip and Points.zip of the MVS data, unpacked together.

Points/stl/stl024_total.ply     points of the scanner, mm
ObsMask/ObsMask24_10.mat        where the scanner saw: a grid of truths, its box, its cells' size
ObsMask/Plane24.mat             the table
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from jaxtyping import Bool, Float64

from datasets.surfaces import read_geometry
from utils.registry import ConfigError
from utils.types import Mesh


@dataclass
class DtuReference:
    """One scan; everything in millimetres of DTU's world.

    Attributes:
        points: [P, 3] points of the scanner.
        observed: [X, Y, Z] whether the scanner saw a cell.
        box: [2, 3] corners between which the cells lie; a cell's index is its place from the lower one over `cell`.
        cell: side of a cell.
        plane: [4] coefficients of the table; points above it give a positive value.
    """

    points: Float64[np.ndarray, "P 3"]
    observed: Bool[np.ndarray, "X Y Z"]
    box: Float64[np.ndarray, "2 3"]
    cell: float
    plane: Float64[np.ndarray, "4"]


def read_dtu_reference(root: Path, scan: int) -> DtuReference:
    """The reference of a scan.

    Raises:
        ConfigError: a file is missing or broken.
    """
    stl, mask, plane = (
        _existing(root / name)
        for name in (
            f"Points/stl/stl{scan:03d}_total.ply",
            f"ObsMask/ObsMask{scan}_10.mat",
            f"ObsMask/Plane{scan}.mat",
        )
    )
    loaded = read_geometry(stl)
    points = loaded.vertices if isinstance(loaded, Mesh) else loaded
    content = _matrices(mask, "ObsMask", "BB", "Res")
    return DtuReference(
        points.double().numpy(),
        content["ObsMask"].astype(bool),
        # The corners go through single precision in the protocol's own program.
        content["BB"].astype(np.float32).astype(np.float64),
        float(content["Res"].reshape(())),
        _matrices(plane, "P")["P"].astype(np.float64).reshape(4),
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; unpack Points.zip and SampleSet.zip of DTU's MVS data into --dtu")
    return path


def _matrices(path: Path, *names: str) -> dict[str, np.ndarray]:
    try:
        content: dict[str, Any] = scipy.io.loadmat(str(path))
    except (OSError, ValueError, TypeError, NotImplementedError, scipy.io.matlab.MatReadError) as error:
        raise ConfigError(f"{path} cannot be read as a MATLAB file: {error}; unpack it again") from error
    for name in names:
        if name not in content:
            raise ConfigError(f"{path} holds no {name}; expected {', '.join(names)} as in DTU's SampleSet.zip")
    return {name: np.asarray(content[name]) for name in names}
