"""`sequence-autodecoder`: a learnt code for every sequence of photographs (Bojanowski et al. 2018, GLO)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models import global_encoders
from models.conditioning.encoder import GlobalEncoder
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Rays


@global_encoders.register("sequence-autodecoder")
class SequenceAutodecoder(GlobalEncoder):
    """A table with a row per sequence.

    A sequence gets the next free row when its name is first told, and the names are saved with the weights, so a
    checkpoint finds its codes again in a data set with other sequences or another order. The gradient of a row is
    divided by the number of images in the batch that show its sequence.
    """

    @dataclass
    class Config:
        encoding_dim: int = 256
        """Length of a code."""
        n_instances: int = 1
        """Rows of the table, the largest number of sequences."""
        init_scale: float = 1.0
        """Standard deviation of codes before training."""
        ignore_input: bool = False
        """Whether all sequences share one code."""

        def __post_init__(self) -> None:
            check_least(self, encoding_dim=1, n_instances=1, init_scale=0)

    has_norm = True

    def __init__(self, config: "SequenceAutodecoder.Config"):
        super().__init__()
        self.config, self.n_outputs = config, config.encoding_dim
        self.code = nn.Parameter(config.init_scale * torch.randn(config.n_instances, config.encoding_dim))
        self.names: list[str] = []
        self.scenes: Sequence[str] | None = None
        self.register_buffer("row", torch.arange(config.n_instances), persistent=False)
        self.row: Tensor

    def know_scenes(self, names: Sequence[str]) -> None:
        """A sequence without a row gets the next free one; in evaluation, too, where its code is a random one."""
        if names is self.scenes or self.config.ignore_input:
            return
        met = set(self.names)
        self.names += [name for name in dict.fromkeys(names) if name not in met]
        if len(self.names) > self.config.n_instances:
            raise ConfigError(
                f"model.global_encoder.n_instances is {self.config.n_instances}, but there are {len(self.names)} "
                f"sequences; set it to {len(self.names)} or more"
            )
        rows = {name: row for row, name in enumerate(self.names)}
        self.row = torch.tensor([rows[name] for name in names], device=self.code.device)
        self.scenes = names

    def forward(self, rays: Rays) -> Float[Tensor, "R G"]:
        if self.config.ignore_input or rays.scene is None:
            scene = torch.zeros_like(rays.view)
        else:
            scene = rays.scene
        image, place = torch.unique(rays.view, return_inverse=True)
        row = self.row[scene.new_zeros(len(image)).scatter_(0, place, scene)]
        # Looked up once per image: frequencies count images, not rays.
        return F.embedding(row, self.code, scale_grad_by_freq=True)[place]

    def norm(self) -> Float[Tensor, ""]:
        return self.code.square().mean()

    def get_extra_state(self) -> Any:
        return self.names

    def set_extra_state(self, state: Any) -> None:
        self.names, self.scenes = list(state), None
