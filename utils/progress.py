"""How far long work is: a bar on a terminal, and a line now and then where the output goes to a file."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

PAUSE = 10.0
"""Seconds between two lines."""


@contextmanager
def progress(what: str, n: int, unit: str) -> Iterator[Callable[[float], None]]:
    """Says what begins, how fast it goes and how long it will still take.

    Args:
        what: the work.
        n: how much there is of it.
        unit: of what.

    Yields:
        What to tell the finished share, in [0, 1].
    """
    console = Console()
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[pace]}")]
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(what, total=1.0, pace="")
    if not console.is_terminal:
        print(f"{what} ...", flush=True)
    begun = said = time.monotonic()

    def tell(share: float) -> None:
        nonlocal said
        now = time.monotonic()
        pace = _pace(share, n, unit, now - begun)
        bar.update(task, completed=share, pace=pace)
        if not console.is_terminal and now - said > PAUSE:
            said = now
            print(f"{what}: {pace}", flush=True)

    with bar:
        yield tell


def _pace(share: float, n: int, unit: str, seconds: float) -> str:
    rate = share * n / max(seconds, 1e-6)
    left = seconds * (1 - share) / share if share > 0 else 0.0
    size, prefix = next(((size, name) for size, name in ((1e6, "M "), (1e3, "k ")) if rate >= size), (1, ""))
    return f"{share:.0%}  {rate / size:.1f} {prefix}{unit}/s  {int(left) // 60}:{int(left) % 60:02d} left"
