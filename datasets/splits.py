"""Which photographs of a set without splits of its own are trained on, and which are held out."""

from dataclasses import dataclass
from typing import Literal

from datasets.trajectories import Trajectory
from utils.registry import ConfigError


@dataclass
class SplitConfig:
    """Keys of readers whose files name no splits.

    A reader takes the rows `split_rows(len(photographs), config.source(split), config.eval_every)` of its photographs,
    sorted by name; where there are none, the split is the camera path.
    """

    train_split: Literal["train", "val"] = "train"
    """What is trained on without eval_every: all photographs."""
    val_split: Literal["train", "val", "test"] = "train"
    """What is validated on without eval_every: all photographs (train, val) or the camera path (test)."""
    test_split: Literal["train", "val", "test"] = "test"
    """The same for the test."""
    eval_every: int | None = None
    """Hold out every so-manieth photograph, from the first on, for validation and test; null trains on all."""
    n_test_traj_steps: int = 120
    """Frames of the camera path."""
    test_traj_size: int = 640
    """Longest side of these frames, pixels; that of the first photograph where it is shorter."""
    test_trajectory: Trajectory = "auto"
    """Course of the camera path: circle, arc, spiral; auto is a circle where cameras stand all around, else an arc."""

    def source(self, split: str) -> str:
        """The name under which `split_rows` finds the photographs of split "train", "val" or "test"."""
        return split if self.eval_every is not None else getattr(self, f"{split}_split")


def split_rows(n: int, split_name: str, eval_every: int | None) -> list[int]:
    """Rows of the photographs of a split; none where the split is a camera path.

    Args:
        n: number of photographs, sorted by name.
        split_name: "train", "val" or "test".
        eval_every: hold out rows 0, eval_every, 2 eval_every, ... for val and test; None gives all rows to train and
            val and none to test.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    if eval_every is None:
        return [] if split_name == "test" else list(range(n))
    if eval_every < 2 or n < 2:
        raise ConfigError(
            f"dataset.eval_every = {eval_every} holds out all of {n} photographs; set it to 8, or to null"
        )
    is_wanted = [(row % eval_every == 0) != (split_name == "train") for row in range(n)]
    return [row for row in range(n) if is_wanted[row]]
