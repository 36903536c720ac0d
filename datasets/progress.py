"""A progress bar for work that turns out to be long."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")

PATIENCE = 1.0
"""Seconds of silence before the bar appears."""


def with_progress(items: Iterable[T], n_items: int, what: str) -> Iterator[T]:
    """The items, unchanged; a bar on a terminal shows how many of `n_items` came, once that takes a while."""
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True)
    task = bar.add_task(what, total=n_items)
    begun, is_shown = time.monotonic(), False
    try:
        for item in items:
            bar.advance(task)
            if console.is_terminal and not is_shown and time.monotonic() - begun > PATIENCE:
                bar.start()
                is_shown = True
            yield item
    finally:
        if is_shown:
            bar.stop()
