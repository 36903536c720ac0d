"""How a field becomes a mesh: options shared by all geometries."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

from utils.config import check_least
from utils.registry import ConfigError

Method = Literal["mc", "mc-torch", "skimage"]


@dataclass
class IsosurfaceConfig:
    """Options of marching cubes."""

    method: Method = "mc"
    """Whose triangles join the vertices: mc takes those of PyMCubes where it is installed, else those of scikit-image;
    mc-torch takes those of torchmcubes. Vertices are the same."""
    resolution: int = 512
    """Grid vertices per side."""
    chunk: int = 2097152
    """Points evaluated at once."""
    threshold: float = 0.0
    """Value of the field on the surface: a density, or a signed distance in world units."""

    def __post_init__(self) -> None:
        check_least(self, resolution=2, chunk=1)
        if self.method == "mc-torch" and not importlib.util.find_spec("torchmcubes"):
            raise ConfigError(
                "method is mc-torch, but torchmcubes is not installed; set it to mc, which gives the same surface, or "
                "pip install git+https://github.com/tatsy/torchmcubes.git"
            )
