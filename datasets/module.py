"""The bridge to Lightning: which views each stage looks at.

Loaders hand out numbers only. The system draws rays from `SceneData.views`, which lie as bytes on its device, so
there are neither worker processes nor images to copy.
"""

import itertools
import warnings
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datasets.views import Views

SPLITS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("train",)}


@runtime_checkable
class Reader(Protocol):
    """What every registered data set offers."""

    def views(self, split: str) -> Views:
        """The views of split "train", "val" or "test"."""
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

    def views(self, split: str) -> Views:
        """The views of "train", "val" or "test", on the device that the trainer computes on."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if split not in self._views:
            self._views[split] = self._reader.views(split)
        if self._views[split].offsets.device != device:
            self._views[split] = self._views[split].to(device)
        return self._views[split]

    def setup(self, stage: str) -> None:
        # Lightning advises more workers, but there is nothing here for them to do.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        for split in SPLITS_OF_STAGE[stage]:
            self.views(split)

    def train_dataloader(self) -> DataLoader[int]:
        """0, 1, 2, ... without end; `trainer.max_steps` decides when it is enough."""
        return DataLoader(Count(), batch_size=None)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return self._indices("val")

    def test_dataloader(self) -> DataLoader[Tensor]:
        return self._indices("test")

    def predict_dataloader(self) -> DataLoader[Tensor]:
        return self._indices("train")

    def _indices(self, split: str) -> DataLoader[Tensor]:
        """View indices as scalar tensors; with several processes, Lightning's sampler gives each its share."""
        return DataLoader(list(torch.arange(len(self.views(split)))), batch_size=None)  # type: ignore[arg-type]


class Count(IterableDataset[int]):
    """The natural numbers."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()
