"""What the readers share: paths, errors that name the file, text tables, undirected edges."""

from __future__ import annotations

import gzip
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import numpy.typing as npt

StrPath = str | os.PathLike[str]
IntArray = npt.NDArray[np.int64]


def existing_file(path: StrPath) -> Path:
    """Return the path of a file that is there; FileNotFoundError otherwise."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.is_dir():
        raise IsADirectoryError(f"expected a file, got a folder: {path}")
    return path


def existing_folder(path: StrPath) -> Path:
    """Return the path of a folder that is there; FileNotFoundError otherwise."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such folder: {path}")
    if not path.is_dir():
        raise NotADirectoryError(f"expected a folder, got a file: {path}")
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path before the message of whatever is found wrong inside the file."""
    try:
        yield
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {error}") from error


def stem(path: Path) -> str:
    """Return the file's name up to its first dot: `web` for `data/web.txt.gz`."""
    return path.name.split(".")[0] or path.name


def open_text(path: Path) -> TextIO:
    """Open a text file, decompressing one that ends in `.gz`."""
    if path.suffix == ".gz":
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8", errors="replace"))
    return path.open(encoding="utf-8", errors="replace")


def read_table(
    path: Path,
    dtype: npt.DTypeLike,
    *,
    delimiter: str | None = None,
    comments: str | None = None,
    skip_lines: int = 0,
    columns: tuple[int, ...] | None = None,
    min_dims: int = 2,
) -> npt.NDArray[Any]:
    """Read a plain or gzipped table of numbers; ValueError for a field that does not fit `dtype`.

    Cost: a few tenths of a microsecond per line of three fields.
    """
    with warnings.catch_warnings():
        # numpy reads "1.5" as the integer 1 with no more than a deprecation warning.
        warnings.simplefilter("error", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*input contained no data.*")
        try:
            return np.loadtxt(
                str(path),
                dtype=dtype,
                delimiter=delimiter,
                comments=comments,
                skiprows=skip_lines,
                usecols=columns,
                ndmin=cast("Any", min_dims),
                encoding="utf-8",
            )
        except DeprecationWarning as warning:
            raise ValueError(str(warning)) from None


def check_ids(field: str, ids: npt.NDArray[Any], num_nodes: int) -> IntArray:
    """Return ids as int64; ValueError names the first row with one outside [0, num_nodes)."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{field} must hold integers, got {ids.dtype}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= num_nodes):
        bad = (ids < 0) | (ids >= num_nodes)
        row = int(np.argwhere(bad)[0][0])
        raise ValueError(f"{field}[{row}] is {ids[row].tolist()}, expected ids in [0, {num_nodes})")
    return ids.astype(np.int64, copy=False)


def undirected_edges(
    pairs: IntArray,  # [E, 2]
    num_nodes: int,
    *,
    keep_loops: bool = True,
) -> IntArray:
    """Return both directions of every pair, each once, sorted by destination and then source.

    Cost: a sort of `2 * E` 64-bit keys.
    """
    if not keep_loops:
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    src = np.concatenate([pairs[:, 0], pairs[:, 1]])
    dst = np.concatenate([pairs[:, 1], pairs[:, 0]])
    keys = np.unique(dst * num_nodes + src)
    edge_index = np.empty((2, len(keys)), dtype=np.int64)
    # A graph without nodes has no keys either; the divisor only must not be 0.
    np.divmod(keys, max(num_nodes, 1), out=(edge_index[1], edge_index[0]))
    return edge_index


def with_reversed(
    edge_index: IntArray,  # [2, E]
    weight: npt.NDArray[np.float32] | None,  # [E]
) -> tuple[IntArray, npt.NDArray[np.float32] | None]:
    """Append the reverse of every edge but the self loops, with the same weight."""
    turned = edge_index[0] != edge_index[1]  # [E]
    both = np.concatenate([edge_index, edge_index[::-1, turned]], axis=1)
    return both, None if weight is None else np.concatenate([weight, weight[turned]])
