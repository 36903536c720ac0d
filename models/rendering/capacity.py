"""How much room samples get where only a GPU knows how many there are."""

from jaxtyping import Bool
from torch import Tensor, nn

from utils.late_counts import LateCounts
from utils.types import Samples

MARGIN = 1.1  # over the most samples per ray of the last steps
LEAST = 4096  # fewer are no faster


class Capacity(nn.Module):
    """Lengths of padded samples, from the numbers that earlier steps have asked for.

    A length is one of sixteen per power of two, so that memory is used again and seldom asked for. Where it is too
    small, some rays lose their samples (`Samples.is_whole`) for the few steps until the numbers have become known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = LateCounts()

    def rows(self, n_rays: int) -> int | None:
        """Samples to make room for; None where that is not known yet, and the host has to wait for their number."""
        if not self.counts.recent or not n_rays:
            return None
        n = int(MARGIN * n_rays * max(n_samples / n for n_samples, n in self.counts.recent))
        unit = 2 ** max(n.bit_length() - 5, 0)
        return max(-(-n // unit) * unit, LEAST)

    def note(self, samples: Samples) -> None:
        """Learns from samples that it gave room to, or would have."""
        self.counts.exchange(samples.n_wanted, samples.n_rays)

    def keep(self, samples: Samples, chosen: Bool[Tensor, "N"]) -> Samples:
        """The chosen samples, padded where the given ones are."""
        if not samples.is_padded:
            return samples.keep(chosen)
        kept = samples.keep(chosen, self.rows(samples.n_rays))
        self.note(kept)
        return kept
