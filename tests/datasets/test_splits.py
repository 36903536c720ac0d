import pytest

from datasets.splits import SplitConfig, split_rows
from utils.registry import ConfigError


@pytest.mark.parametrize("n, eval_every", [(2, 8), (8, 8), (9, 8), (50, 8), (7, 2), (3, 3)])
def test_held_out_photographs_and_the_rest_are_disjoint_and_complete(n, eval_every):
    train, test = (split_rows(n, split, eval_every) for split in ("train", "test"))
    assert sorted(train + test) == list(range(n))
    assert train and test


def test_every_eighth_photograph_from_the_first_on_is_held_out():
    assert split_rows(20, "test", 8) == [0, 8, 16]
    assert split_rows(20, "val", 8) == [0, 8, 16]
    assert split_rows(4, "train", 8) == [1, 2, 3]


def test_without_held_out_photographs_all_are_trained_on_and_the_test_is_a_camera_path():
    config = SplitConfig()
    rows = {split: split_rows(3, config.source(split), config.eval_every) for split in ("train", "val", "test")}
    assert rows == {"train": [0, 1, 2], "val": [0, 1, 2], "test": []}


def test_held_out_photographs_win_over_what_stands_in_for_a_split():
    config = SplitConfig(eval_every=2)
    assert split_rows(4, config.source("val"), config.eval_every) == [0, 2]


def test_a_split_may_stand_in_for_another():
    config = SplitConfig(val_split="test", test_split="train")
    assert split_rows(3, config.source("val"), None) == []
    assert split_rows(3, config.source("test"), None) == [0, 1, 2]


@pytest.mark.parametrize("n, eval_every", [(10, 1), (10, 0), (1, 8)])
def test_holding_out_everything_is_an_error_that_names_the_key(n, eval_every):
    with pytest.raises(ConfigError, match=f"dataset.eval_every = {eval_every} .* {n} photographs"):
        split_rows(n, "train", eval_every)
