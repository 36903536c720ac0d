"""Checkpoints that parts write more than tensors into."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from models.conditioning.codes import SequenceAutodecoder
from systems.trainer import read_checkpoint
from utils.registry import ConfigError


def system(encoding_dim: int = 4) -> pl.LightningModule:
    module = pl.LightningModule()
    module.encoder = SequenceAutodecoder(SequenceAutodecoder.Config(encoding_dim=encoding_dim, n_instances=2))
    return module


def test_codes_and_the_names_of_their_sequences_come_back(tmp_path: Path) -> None:
    saved, path = system(), tmp_path / "last.ckpt"
    saved.encoder.know_scenes(["bear", "apple"])
    torch.save({"state_dict": saved.state_dict()}, path)
    loaded = system()
    loaded.load_state_dict(read_checkpoint(path, loaded)["state_dict"])
    assert loaded.encoder.names == ["bear", "apple"] and torch.equal(loaded.encoder.code, saved.encoder.code)
    with pytest.raises(ConfigError, match="encoder.code is .2, 4. there and .2, 5. here"):
        read_checkpoint(path, system(5))
