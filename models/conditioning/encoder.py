"""Global encoders: one code per scene or moment, which implicit functions take beside positions."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from utils.types import Rays


class GlobalEncoder(nn.Module, ABC):
    """Gives every ray the code of its scene or time. Built as `encoder(config)`.

    Attributes:
        n_outputs: length of a code.
        has_norm: whether `norm` has a meaning.
    """

    n_outputs: int
    has_norm: bool = False

    def know_scenes(self, names: Sequence[str]) -> None:
        """Called before rays come, with the names of the sequences that `Rays.scene` counts."""

    @abstractmethod
    def forward(self, rays: Rays) -> Float[Tensor, "R G"]:
        """The code of each ray."""

    def norm(self) -> Float[Tensor, ""]:
        """Mean square of all learnt codes, which `lambda_autodecoder_norm` weighs."""
        raise NotImplementedError(f"{type(self).__name__} has no learnt codes")
