"""What this machine can do at best, measured: random reads, random updates, multiply-adds, a stream.

The limit of an operation is that work and nothing else: accesses to the places it visits, then its arithmetic, then
what it writes. It is a yardstick, no bound: a kernel may compute while it waits for memory.
"""

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from scripts.bench.timing import Job, take_turns

SOURCE = Path(__file__).with_name("roofline.cpp")
FLAGS = ["-O3", "-std=c++17", "-shared", "-fPIC", "-march=native"]
ENTRY_BYTES = 8  # two float32 features
MOST_STREAMED = 64 * 2**20  # bytes of an array: more than the caches of a core


@dataclass(frozen=True)
class Accesses:
    """Visits to one table.

    Attributes:
        n_entries: size of the table, in pairs of floats.
        places: [M] int32 entries in the order of the visits.
    """

    n_entries: int
    places: Int[Tensor, "M"]

    def at_random(self) -> "Accesses":
        """As many visits, each anywhere."""
        places = torch.randint(self.n_entries, self.places.shape, device=self.places.device, dtype=torch.int32)
        return Accesses(self.n_entries, places)


@dataclass(frozen=True)
class Work:
    """What an operation has to do at least."""

    reads: tuple[Accesses, ...] = ()
    updates: tuple[Accesses, ...] = ()
    multiply_adds: int = 0
    bytes_moved: int = 0

    def at_random(self) -> "Work":
        """The same without the coherence of neighbouring samples."""
        reads, updates = (tuple(one.at_random() for one in tables) for tables in (self.reads, self.updates))
        return replace(self, reads=reads, updates=updates)


class Machine(ABC):
    """Does work of one kind at a time, with all threads."""

    device: torch.device

    @abstractmethod
    def read(self, tables: Sequence[Accesses]) -> None: ...

    @abstractmethod
    def update(self, tables: Sequence[Accesses]) -> None: ...

    @abstractmethod
    def multiply_add(self, count: int) -> None: ...

    @abstractmethod
    def stream(self, n_bytes: int) -> None:
        """a = a / 2 + b, twelve bytes an element."""

    def job(self, work: Work) -> Job:
        def run() -> None:
            self.read(work.reads)
            self.update(work.updates)
            if work.multiply_adds:
                self.multiply_add(work.multiply_adds)
            if work.bytes_moved:
                self.stream(work.bytes_moved)

        return run

    def rates(self, rounds: int) -> dict[str, float]:
        """Nanoseconds of a random access by the size of the table, GB/s and GFLOP/s; all threads together."""
        n, n_threads, rates = 2**20, torch.get_num_threads(), {}
        for log2 in (15, 18, 20, 22, 24, 26):
            table = Accesses(2**log2 // ENTRY_BYTES, torch.empty(n, device=self.device)).at_random()
            # A read is shared by all threads, an update is not: as many tables as threads.
            jobs: dict[str, Job] = {
                "read": lambda table=table: self.read([table]),
                "update": lambda table=table: self.update([table] * n_threads),
            }
            times = take_turns(jobs, rounds, self.device)
            rates[f"read_ns_2^{log2}"] = 1e6 * times["read"].median / n
            rates[f"update_ns_2^{log2}"] = 1e6 * times["update"].median / (n * n_threads)
        n_bytes, n_adds = 12 * MOST_STREAMED, 2**30
        jobs = {"stream": lambda: self.stream(n_bytes), "multiply_add": lambda: self.multiply_add(n_adds)}
        times = take_turns(jobs, rounds, self.device)
        rates["stream_gb_s"] = 1e-6 * n_bytes / times["stream"].median
        rates["multiply_add_gflop_s"] = 2e-6 * n_adds / times["multiply_add"].median
        return rates


def make_machine(device: torch.device) -> Machine | None:
    """The machine that computes on `device`, with torch's number of threads; None where there is no C++ compiler."""
    if device.type == "cuda":
        return GraphicsCard(device)
    library = _library()
    return None if library is None else Processor(library, torch.get_num_threads())


class Processor(Machine):
    """CPU threads, each of which runs a function of roofline.cpp."""

    device = torch.device("cpu")

    def __init__(self, library: ctypes.CDLL, n_threads: int):
        self._library, self._n_threads = library, n_threads
        self._pool = ThreadPoolExecutor(n_threads)
        self._arrays: dict[tuple[int, int], Tensor] = {}

    def read(self, tables: Sequence[Accesses]) -> None:
        # A part of every table's visits for each thread, level by level, as an encoding goes.
        parts = [(self._array(2 * table.n_entries), table.places.chunk(self._n_threads)) for table in tables]
        calls = [
            [(entries, places[thread], len(places[thread])) for entries, places in parts if thread < len(places)]
            for thread in range(self._n_threads)
        ]
        self._run(self._library.read, calls)

    def update(self, tables: Sequence[Accesses]) -> None:
        # A table belongs to one thread, as a level does in a scatter without atomics.
        calls = [
            (self._array(2 * table.n_entries, row), table.places, len(table.places)) for row, table in enumerate(tables)
        ]
        self._run(self._library.update, [calls[thread :: self._n_threads] for thread in range(self._n_threads)])

    def multiply_add(self, count: int) -> None:
        self._run(self._library.multiply_add, [[(count // self._n_threads,)]] * self._n_threads)

    def stream(self, n_bytes: int) -> None:
        n = min(n_bytes // 12, MOST_STREAMED // 4)
        parts = zip(*(self._array(n, row).chunk(self._n_threads) for row in range(2)), strict=True)
        self._run(self._library.stream, [[(a, b, len(a))] * round(n_bytes / 12 / n) for a, b in parts])

    def _array(self, n_floats: int, row: int = 0) -> Tensor:
        if (n_floats, row) not in self._arrays:
            self._arrays[n_floats, row] = torch.ones(n_floats)
        return self._arrays[n_floats, row]

    def _run(self, function: Callable[..., object], calls: Iterable[Sequence[tuple[Tensor | int, ...]]]) -> None:
        """The calls of every thread, one after the other; ctypes lets go of Python's lock."""

        def work(mine: Sequence[tuple[Tensor | int, ...]]) -> None:
            for arguments in mine:
                function(*map(_as_c, arguments))

        list(self._pool.map(work, calls))


class GraphicsCard(Machine):
    """A CUDA device, by torch's own kernels: lookups, additions at indices, a matrix product, a sum."""

    SIDE = 4096  # of the matrices

    def __init__(self, device: torch.device):
        self.device = device
        self._arrays = [torch.ones(MOST_STREAMED // 4, device=device) for _ in range(2)]
        self._matrix = torch.ones(self.SIDE, self.SIDE, device=device)

    def read(self, tables: Sequence[Accesses]) -> None:
        for table in tables:
            self._entries(table).index_select(0, table.places)

    def update(self, tables: Sequence[Accesses]) -> None:
        for table in tables:
            self._entries(table).index_add_(0, table.places, torch.ones(len(table.places), 2, device=self.device))

    def multiply_add(self, count: int) -> None:
        torch.mm(self._matrix, self._matrix.new_ones(self.SIDE, max(1, round(count / self.SIDE**2))))

    def stream(self, n_bytes: int) -> None:
        n = min(n_bytes // 12, MOST_STREAMED // 4)
        a, b = (array[:n] for array in self._arrays)
        for _ in range(round(n_bytes / 12 / n)):
            torch.add(b, a, alpha=0.5, out=a)

    def _entries(self, table: Accesses) -> Tensor:
        return self._arrays[0][: 2 * table.n_entries].view(-1, 2)


@cache
def _library() -> ctypes.CDLL | None:
    """roofline.cpp, compiled for this processor; None without a compiler."""
    commands = [shlex.split(os.environ["CXX"])] if os.environ.get("CXX") else []
    commands += [[path] for name in ("c++", "g++", "clang++") if (path := shutil.which(name))]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "roofline.so"
        for command in commands:
            result = subprocess.run([*command, *FLAGS, str(SOURCE), "-o", str(target)], capture_output=True, text=True)
            if result.returncode == 0:
                return ctypes.CDLL(str(target))
            print(f"{command[0]} does not compile {SOURCE.name}: {result.stderr.strip()}", file=sys.stderr)
    return None


def _as_c(argument: Tensor | int) -> object:
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_void_p(argument.data_ptr())
