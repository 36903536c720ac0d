"""The bridge to Lightning: which views each stage looks at.

Loaders hand out numbers only. The system draws rays from `SceneData.views`, whose images lie as bytes on its device
or, on request, in host memory, so there are neither worker processes nor images to copy.
"""

import functools
import itertools
import warnings
import weakref
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datasets.views import Views
from utils.notice import notice

SPLITS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("train",)}


@runtime_checkable
class Reader(Protocol):
    """What every registered data set offers."""

    def views(self, split: str) -> Views:
        """The views of split "train", "val" or "test"."""
        ...


@runtime_checkable
class PathReader(Protocol):
    """A data set that also offers a camera path for the video."""

    def path(self) -> Views | None:
        """The path, or None where the test views themselves make the video."""
        ...


class SceneData(pl.LightningDataModule):
    """One scene for all stages; every split is read once, when its stage begins.

    Args:
        reader: the data set.
    """

    def __init__(self, reader: Reader):
        super().__init__()
        self._reader = reader
        self._views: dict[str, Views] = {}
        self._sources: dict[str, weakref.ref[Views]] = {}

    def views(self, split: str) -> Views:
        """The views of "train", "val", "test" or, where there is one, "path", on the device of the trainer."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        known = self._views.get(split)
        views = self._read(split) if known is None else known
        if views.offsets.device != device:
            views = views.to(device)
        if views is not known:
            self._views[split] = views
            _tell_size(views)
        return views

    def _read(self, split: str) -> Views:
        """What the reader gives; splits that are one object there stay one, with their images on a device once."""
        read = self._path if split == "path" else self._reader.views(split)
        assert read is not None
        twins = [self._views[other] for other, source in self._sources.items() if source() is read]
        self._sources[split] = weakref.ref(read)
        return twins[0] if twins else read

    @functools.cached_property
    def _path(self) -> Views | None:
        """The path of the video, where test views are photographs and the data set has one."""
        return self._reader.path() if isinstance(self._reader, PathReader) and self.views("test").is_real else None

    def setup(self, stage: str) -> None:
        # Lightning advises more workers, but there is nothing here for them to do.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        for split in SPLITS_OF_STAGE[stage]:
            self.views(split)

    def train_dataloader(self) -> DataLoader[int]:
        """0, 1, 2, ... without end; `trainer.max_steps` decides when it is enough."""
        return DataLoader(Count(), batch_size=None)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return _indices(len(self.views("val")))

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Indices of the test views; those of the frames of the path follow."""
        return _indices(len(self.views("test")) + (0 if self._path is None else len(self._path)))

    def predict_dataloader(self) -> DataLoader[Tensor]:
        return _indices(len(self.views("train")))


def _indices(n: int) -> DataLoader[Tensor]:
    """View indices as scalar tensors; with several processes, Lightning's sampler gives each its share."""
    return DataLoader(list(torch.arange(n)), batch_size=None)  # type: ignore[arg-type]


def _tell_size(views: Views) -> None:
    if views.color is not None:
        notice(f"images: {len(views)} views, {views.n_bytes / 1e6:.1f} MB on {views.color.device}")


class Count(IterableDataset[int]):
    """The natural numbers."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()
