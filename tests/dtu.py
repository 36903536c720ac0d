"""A DTU scan made by hand, whose scores are counted by hand in `tests/systems/test_dtu_protocol.py`; millimetres."""

from pathlib import Path

import numpy as np
import scipy.io
import trimesh

SCANNED = np.array([[x, y, 0.0] for x in range(0, 50, 5) for y in range(0, 50, 5)])
"""100 points on the object, 5 mm apart, from (0, 0) to (45, 45)."""
BELOW = SCANNED[:40] - [0, 0, 3.0]
"""40 points under the table, which is at z = -2."""
FAR = np.array([[150.0, 20, 0]])
"""A point 105 mm and more from everything else."""
BOX = np.array([[-10.0, -10, -10], [50, 50, 50]])
CELL = 2.0


def observed() -> np.ndarray:
    """[31, 31, 31] cells from the lower corner of the box to the upper; the scanner saw none with x < -3."""
    cells = np.ones((31, 31, 31), dtype=np.uint8)
    cells[:4] = 0  # around x = -10, -8, -6, -4
    return cells


def write_scan(root: Path, scan: int = 7) -> Path:
    """The scan in the layout of DTU's own files."""
    (root / "Points" / "stl").mkdir(parents=True)
    (root / "ObsMask").mkdir()
    cloud = np.concatenate([SCANNED, BELOW, FAR])
    trimesh.PointCloud(cloud).export(root / "Points" / "stl" / f"stl{scan:03d}_total.ply")
    mask = {"ObsMask": observed(), "BB": BOX, "Res": np.array([[CELL]])}
    scipy.io.savemat(root / "ObsMask" / f"ObsMask{scan}_10.mat", mask)
    scipy.io.savemat(root / "ObsMask" / f"Plane{scan}.mat", {"P": np.array([[0.0], [0], [1], [2]])})
    return root


def corners(vertices: np.ndarray) -> trimesh.Trimesh:
    """A mesh that is its vertices alone: its triangles have no area, so no points are drawn on them."""
    return trimesh.Trimesh(vertices, np.arange(len(vertices))[:, None].repeat(3, axis=1), process=False)
