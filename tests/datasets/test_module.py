import itertools

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from datasets.module import SceneData
from datasets.views import Views
from tests.datasets.test_views import views_of_sizes


class CountingReader:
    """Three training, two validation and four test views; remembers what was read."""

    def __init__(self):
        self.read: list[str] = []

    def views(self, split: str) -> Views:
        self.read.append(split)
        return views_of_sizes(*[(2, 2)] * {"train": 3, "val": 2, "test": 4}[split])


class Recorder(pl.LightningModule):
    """Writes down the batches of every stage."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[int]] = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch: int) -> Tensor:
        self.seen["train"].append(int(batch))
        return self.weight**2

    def validation_step(self, batch: Tensor) -> None:
        self.seen["val"].append(int(batch))

    def test_step(self, batch: Tensor) -> None:
        self.seen["test"].append(int(batch))

    def predict_step(self, batch: Tensor) -> None:
        self.seen["predict"].append(int(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer() -> pl.Trainer:
    return pl.Trainer(
        max_steps=5,
        accelerator="cpu",
        devices=1,
        logger=False,
        num_sanity_val_steps=0,
        val_check_interval=5,
        check_val_every_n_epoch=None,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_training_counts_steps_without_end():
    steps = SceneData(CountingReader()).train_dataloader()
    assert list(itertools.islice(steps, 1000)) == list(range(1000))


def test_each_stage_sees_every_view_of_its_split_once():
    data, system = SceneData(CountingReader()), Recorder()
    trainer().fit(system, datamodule=data)
    trainer().test(system, datamodule=data, verbose=False)
    trainer().predict(system, datamodule=data, return_predictions=False)
    assert system.seen == {"train": [0, 1, 2, 3, 4], "val": [0, 1], "test": [0, 1, 2, 3], "predict": [0, 1, 2]}


def test_a_split_is_read_when_its_stage_begins_and_never_again():
    reader = CountingReader()
    data = SceneData(reader)
    assert reader.read == []
    data.setup("fit")
    assert reader.read == ["train", "val"]
    data.setup("validate")
    data.setup("predict")
    assert data.views("train") is data.views("train")
    assert reader.read == ["train", "val"]
    data.setup("test")
    assert reader.read == ["train", "val", "test"]


class FamilyReader(CountingReader):
    """Validates on the training views."""

    def __init__(self):
        super().__init__()
        self.all = views_of_sizes((2, 2), (2, 3))

    def views(self, split: str) -> Views:
        return self.all


def test_splits_that_share_their_photographs_share_them_on_the_device_too():
    data = SceneData(FamilyReader())
    assert data.views("train") is data.views("val")


def test_the_memory_of_the_images_is_told_once(caplog: pytest.LogCaptureFixture):
    data = SceneData(FamilyReader())
    for _ in range(2):
        data.views("train")
        data.views("val")
    assert [record.message for record in caplog.records] == ["images: 2 views, 0.0 MB on cpu"]
