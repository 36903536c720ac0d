"""What readers of captures have in common: the capture is read once, when the first views are asked for."""

import functools
from abc import ABC, abstractmethod
from pathlib import Path

from datasets.capture import Capture, CaptureConfig
from datasets.views import Views


class CaptureReader(ABC):
    """A folder that holds one capture; a reader of a format says how it is read."""

    def __init__(self, config: CaptureConfig):
        self.config = config
        self._root = Path(config.root_dir)

    def views(self, split: str) -> Views:
        """The views of split "train", "val" or "test".

        Raises:
            ConfigError: something is missing, broken or contradictory; the message names it.
        """
        return self._capture.views(split)

    def path(self) -> Views | None:
        """A camera path for the video, or None where the test split is one already."""
        return self._capture.path()

    @functools.cached_property
    def _capture(self) -> Capture:
        return self._read()

    @abstractmethod
    def _read(self) -> Capture:
        """Everything but the pixels."""
