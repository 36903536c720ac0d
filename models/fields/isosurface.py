"""How a field becomes a mesh: options shared by all geometries."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class IsosurfaceConfig:
    """Options of marching cubes."""

    method: Literal["mc", "skimage"] = "mc"
    """mc: PyMCubes where it is installed, else scikit-image; both give the same surface."""
    resolution: int = 512
    """Grid vertices per side."""
    chunk: int = 2097152
    """Points evaluated at once."""
    threshold: float = 0.0
    """Value of the field on the surface: a density, or a signed distance in world units."""
