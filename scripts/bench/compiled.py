"""torch.compile, with the patience of somebody who waits for it."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from scripts.bench.candidates import COMPILED, PLAIN, Candidate, Operation

PATIENCE = 60  # seconds


def with_compiled(operation: Operation) -> tuple[Operation, str]:
    """The operation with its plain candidate compiled beside it, and a line on how that went."""
    torch.compiler.reset()
    plain = operation.candidates.get(PLAIN)
    if plain is None:
        return operation, ""
    candidate = replace(plain, forward=torch.compile(plain.forward, dynamic=False))
    began = time.perf_counter()
    try:
        with _alarm(PATIENCE):
            candidate.job()()
    except Exception as error:  # whatever a compiler says, the other candidates go on
        return operation, f"torch.compile of {operation.name}: {_first_line(error)}"
    seconds = time.perf_counter() - began
    candidates: dict[str, Candidate] = {**operation.candidates, COMPILED: candidate}
    return replace(operation, candidates=candidates), f"torch.compile of {operation.name}: {seconds:.0f} s to compile"


class _TooSlow(Exception):
    pass


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooSlow(f"left out, not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
