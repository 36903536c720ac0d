"""NumPy's `.npy` files."""

from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float32

from utils.registry import ConfigError

# NumPy reads headers as Python, and Python before 3.12 mistakes two threads that parse at once for one that nests.
_PARSING = Lock()


def read_array(path: Path) -> Float32[np.ndarray, "..."]:
    """The numbers of a file; may be called by several threads.

    Raises:
        ConfigError: the file is missing, damaged or holds something else.
    """
    try:
        with _PARSING:
            return np.load(path).astype(np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as an array of numbers: {error}; replace the file") from error
