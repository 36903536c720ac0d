"""Ways to compute something, and what is compared with what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.bench.roofline import Work
from scripts.bench.timing import Job

OURS, REFERENCE, PLAIN, BF16 = "ours", "reference", "plain torch", "bf16 autocast"
NERFACC, TINYCUDANN, COMPILED = "nerfacc", "tiny-cuda-nn", "torch.compile"
LIMIT, RANDOM = "limit", "random limit"


@dataclass(frozen=True)
class Candidate:
    """One way to compute something.

    Attributes:
        forward: computes the outputs.
        leaves: what to differentiate by; empty means forward only.
        is_backward_only: whether the forward pass is done beforehand, unmeasured.
    """

    forward: Callable[[], Any]
    leaves: Sequence[Tensor] = ()
    is_backward_only: bool = False

    def job(self) -> Job:
        """What is timed; runs the forward pass once to learn the shapes of its outputs."""
        if not self.leaves:
            return self._forward_only
        outputs = self._outputs()
        upstream = [torch.randn_like(output) for output in outputs]
        if self.is_backward_only:
            return lambda: torch.autograd.grad(outputs, self.leaves, upstream, retain_graph=True)
        return lambda: torch.autograd.grad(self._outputs(), self.leaves, upstream)

    @torch.no_grad()
    def _forward_only(self) -> object:
        return self.forward()

    def _outputs(self) -> list[Tensor]:
        outputs = self.forward()
        return [outputs] if isinstance(outputs, Tensor) else [output for output in outputs if output.requires_grad]


@dataclass(frozen=True)
class Operation:
    """What is compared.

    Attributes:
        name: of the operation, with the passes that are run.
        size: number of samples, rays or parameters, for times per piece.
        candidates: by name; "ours" is the first.
        work: what it has to do at least, if that is known.
    """

    name: str
    size: int
    candidates: dict[str, Candidate]
    work: Work | None = None
