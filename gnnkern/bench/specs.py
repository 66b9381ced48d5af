"""What a run of the benches measures: words of the command line become cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from gnnkern.bench.harness import THREADS
from gnnkern.bench.peers import GROUPS, NAMES
from gnnkern.bench.problems import KINDS
from gnnkern.bench.timing import MAX_ROUNDS
from gnnkern.hardware import check_device

DEFAULT_OPS = ("spmm_sum", "spmm_weighted", "spmm_max", "edge_softmax", "gat_layer")
DEFAULT_GRAPHS = ("powerlaw_1m",)
DEFAULT_WIDTHS = (64, 128)
DEFAULT_HEADS = (1, 4)

# Problems whose width is a number of heads.
OF_HEADS = ("edge_softmax",)

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
BACKENDS = ("auto", "cpu", "triton", "cuda", "reference")
# By the word of the command line, the package.
PEER_PACKAGES = {NAMES.get(group, group): group for group in GROUPS}
NO_PEERS = "none"


class Cell(NamedTuple):
    """What is measured in one go: all directions of it, and everybody."""

    op: str
    graph: str
    width: int
    dtype: str


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long."""

    ops: Sequence[str] = DEFAULT_OPS
    graphs: Sequence[str] = DEFAULT_GRAPHS
    widths: Sequence[int] = DEFAULT_WIDTHS
    heads: Sequence[int] = DEFAULT_HEADS
    dtypes: Sequence[str] = ("float32",)
    backend: str = "auto"
    packages: Sequence[str] | None = None  # of the peers; None: all
    device: str = "cpu"
    threads: int = THREADS
    rounds: int = MAX_ROUNDS
    cell_seconds: float = 20.0
    budget: float = float("inf")  # seconds in all
    memory_gb: float = float("inf")
    leave_out: float = float("inf")  # peers this many times slower than the best at another width
    commit: str | None = None  # of the files, where no git can tell it
    json: Path | None = None
    resume: bool = False

    @property
    def is_cuda(self) -> bool:
        """Whether a GPU is measured."""
        return self.device.startswith("cuda")

    def cells(self) -> Iterator[Cell]:
        """Graph by graph, so that few are in memory at a time."""
        for graph in self.graphs:
            for op in self.ops:
                for dtype in self.dtypes:
                    for width in self.heads if op in OF_HEADS else self.widths:
                        yield Cell(op, graph, width, dtype)


def parse_ops(words: Sequence[str]) -> list[str]:
    """Problems by name; the first words of several name them all, and "all" is every one.

    Raises:
        ValueError: A word names nothing.
    """
    found: dict[str, None] = {}
    for word in words:
        chosen = [word] if word in KINDS else [op for op in KINDS if op.startswith(f"{word}_")]
        if word == "all":
            chosen = list(KINDS)
        if not chosen:
            raise ValueError(f"bench: op must be some of {', '.join(KINDS)} or all, got {word!r}")
        found.update(dict.fromkeys(chosen))
    return list(found)


def parse_counts(name: str, text: str) -> list[int]:
    """Return the numbers of e.g. "16,64,128".

    Raises:
        ValueError: One of them is no positive number.
    """
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise ValueError(f"bench: {name} must be positive numbers like 16,64, got {text!r}")
    return list(dict.fromkeys(counts))


def parse_dtypes(text: str) -> list[str]:
    """Return the names of e.g. "float32,bfloat16".

    Raises:
        ValueError: One of them is no dtype that is measured.
    """
    return _some_of("dtype", text, DTYPES)


def parse_device(text: str) -> str:
    """Return the name of a device that is there: "cpu", "cuda:0".

    Raises:
        ValueError: It is none, or not here.
    """
    device = check_device("bench", text)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return str(device)


def parse_peers(text: str) -> list[str]:
    """Return the packages of e.g. "torch,pyg"; "none" is nobody.

    Raises:
        ValueError: One of them is no peer.
    """
    if text == NO_PEERS:
        return []
    return [PEER_PACKAGES[word] for word in _some_of("peer", text, PEER_PACKAGES)]


def _some_of(name: str, text: str, known: Collection[str]) -> list[str]:
    words = list(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in known:
            raise ValueError(f"bench: {name} must be some of {', '.join(known)}, got {word!r}")
    return words
