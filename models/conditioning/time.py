"""`harmonic-time`: the time of a photograph as a code."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from models import global_encoders
from models.conditioning.encoder import GlobalEncoder
from models.fields.harmonics import HarmonicEmbedding
from utils.config import check_least
from utils.registry import ConfigError
from utils.types import Rays


@global_encoders.register("harmonic-time")
class HarmonicTime(GlobalEncoder):
    """Harmonics of time; every ray has its own. (The published encoder takes one photograph at a time [D2].)"""

    @dataclass
    class Config:
        n_harmonic_functions: int = 10
        """Frequencies of time."""
        append_input: bool = True
        """Whether time itself is part of the code."""
        time_divisor: float = 1.0
        """What times are divided by, in the data set's unit."""

        def __post_init__(self) -> None:
            check_least(self, n_harmonic_functions=0)
            if self.n_harmonic_functions < 1 and not self.append_input:
                raise ConfigError(
                    "n_harmonic_functions is 0 and append_input is false, which leaves no code; raise one"
                )
            if self.time_divisor == 0:
                raise ConfigError("time_divisor is 0; expected another number")

    def __init__(self, config: "HarmonicTime.Config"):
        super().__init__()
        self.config = config
        self.harmonics = HarmonicEmbedding(config.n_harmonic_functions, n_inputs=1, append_input=config.append_input)
        self.n_outputs = self.harmonics.n_outputs

    def forward(self, rays: Rays) -> Float[Tensor, "R G"]:
        if rays.time is None:
            raise ConfigError(
                "model.global_encoder harmonic-time needs times of photographs, which the data set does not have; "
                "choose another encoder, or none"
            )
        return self.harmonics(rays.time[:, None] / self.config.time_divisor)
