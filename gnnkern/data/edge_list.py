"""Reader of edge lists: one edge per line, as SNAP and most other collections publish graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from gnnkern.data._files import (
    IntArray,
    StrPath,
    existing_file,
    naming,
    open_text,
    read_table,
    stem,
    with_reversed,
)
from gnnkern.data.graph_data import GraphData

_COMMENTS = "#%"

# A graph whose largest id exceeds this many times its edges is taken for one with sparse ids, as
# arrays by node would dwarf the file; small graphs are exempt.
_MAX_IDS_PER_EDGE = 100
_SMALL = 1_000_000


@dataclass(frozen=True)
class _Layout:
    """How the lines of one file are to be read."""

    comment: str
    delimiter: str | None  # None: any white space
    skip_lines: int  # lines up to the end of a header
    width: int  # fields on the first line of data; 0 where there is none
    weighted: bool
    exact: bool  # every line has exactly `width` fields

    def fields(self, line: str) -> list[str]:
        content = line.split(self.comment, 1)[0].strip()
        return content.split(self.delimiter) if content else []


def read_edge_list(
    path: StrPath,
    *,
    name: str | None = None,
    weighted: bool | None = None,
    undirected: bool = False,
    relabel: bool = False,
    num_nodes: int | None = None,
) -> GraphData:
    """Read a text file with one edge `source destination [weight]` per line; `.gz` is unpacked.

    Fields are separated by white space or by commas. Lines (and ends of lines) from `#` on, or `%`
    in files that begin with it, are comments; one header line without any number is skipped. Edges
    keep the order of the file, self loops and repeated edges included.

    Format: the SNAP collection (Leskovec and Krevl, https://snap.stanford.edu/data).

    Args:
        path: the file.
        name: name of the graph; the file's stem by default.
        weighted: whether the third column is a weight (float32). None: when there are three
            columns. False ignores all columns from the third on, such as time stamps.
        undirected: append the reverse of every edge but the self loops, with the same weight.
        relabel: number the nodes 0, 1, ... by increasing id, and keep the ids in `node_ids`.
        num_nodes: number of nodes; the largest id + 1 by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a field that is not a number, a wrong number of fields, a negative id or one out
            of range (the message names file and line), or ids so sparse that they need `relabel`.

    Cost: a few tenths of a microsecond per line; peak memory about three times the edges.
    """
    path = existing_file(path)
    if relabel and num_nodes is not None:
        raise ValueError("read_edge_list: give either relabel=True or num_nodes, not both")
    with naming(path):
        layout = _find_layout(path, weighted)
        edge_index, weight = _read_edges(path, layout, relabel, num_nodes)
        node_ids = None
        if relabel:
            ids, positions = np.unique(edge_index, return_inverse=True)
            edge_index, node_ids = positions.reshape(2, -1), torch.from_numpy(ids)
            num_nodes = len(ids)
        if num_nodes is None:
            num_nodes = _count_nodes(edge_index)
        if undirected:
            edge_index, weight = with_reversed(edge_index, weight)
        return GraphData(
            name=name or stem(path),
            edge_index=torch.from_numpy(edge_index),
            num_nodes=num_nodes,
            edge_weight=None if weight is None else torch.from_numpy(weight),
            node_ids=node_ids,
        )


def _find_layout(path: Path, weighted: bool | None) -> _Layout:
    comment: str | None = None
    skip_lines = 0
    fields: list[str] = []
    delimiter: str | None = None
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            content = line.strip()
            if content[:1] and content[0] in _COMMENTS:
                comment = comment or content[0]
                continue
            content = content.split(comment or "#", 1)[0].strip()
            if not content:
                continue
            delimiter = "," if "," in content else None
            fields = content.split(delimiter)
            if skip_lines or any(_is_number(field) for field in fields):
                break
            skip_lines, fields = number, []
    width = len(fields)
    if width > 3 and weighted is None:
        raise ValueError(
            f"the lines have {width} fields: weighted=True reads the third as the weight, "
            "weighted=False ignores all from the third on"
        )
    if weighted is None:
        weighted, exact = width == 3, True
    else:
        exact = False
    return _Layout(comment or "#", delimiter, skip_lines, width, weighted, exact)


def _read_edges(
    path: Path, layout: _Layout, relabel: bool, num_nodes: int | None
) -> tuple[IntArray, np.ndarray[tuple[int], np.dtype[np.float32]] | None]:
    if layout.width == 0:
        empty = np.empty((2, 0), dtype=np.int64)
        return empty, np.empty(0, dtype=np.float32) if layout.weighted else None
    fields = [("src", np.int64), ("dst", np.int64), ("weight", np.float32)]
    fields = fields[: 3 if layout.weighted else 2]
    try:
        table = read_table(
            path,
            np.dtype(fields),
            delimiter=layout.delimiter,
            comments=layout.comment,
            skip_lines=layout.skip_lines,
            columns=None if layout.exact else tuple(range(len(fields))),
            min_dims=1,
        )  # [E]
    except ValueError as error:
        _name_the_line(path, layout, relabel, num_nodes, str(error))
    edge_index = np.stack([table["src"], table["dst"]])
    if not relabel and edge_index.size:
        high = np.iinfo(np.int64).max if num_nodes is None else num_nodes
        if int(edge_index.min()) < 0 or int(edge_index.max()) >= high:
            _name_the_line(path, layout, relabel, num_nodes, "an id is out of range")
    return edge_index, table["weight"].copy() if layout.weighted else None


def _count_nodes(edge_index: IntArray) -> int:
    if edge_index.size == 0:
        return 0
    num_nodes = int(edge_index.max()) + 1
    if num_nodes > max(_SMALL, _MAX_IDS_PER_EDGE * edge_index.shape[1]):
        raise ValueError(
            f"ids reach {num_nodes - 1} with {edge_index.shape[1]} edges: relabel=True numbers the "
            "nodes that occur, num_nodes=... keeps the ids"
        )
    return num_nodes


def _name_the_line(
    path: Path, layout: _Layout, relabel: bool, num_nodes: int | None, found: str
) -> NoReturn:
    """Raise ValueError for the first line that is wrong, or `found` if every line looks right."""
    needed = 3 if layout.weighted else 2
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            fields = layout.fields(line)
            if number <= layout.skip_lines or not fields:
                continue
            problem = None
            if len(fields) < needed or (layout.exact and len(fields) != needed):
                problem = f"expected {needed} fields, got {len(fields)}"
            for field in fields[:2]:
                problem = problem or _wrong_id(field, relabel, num_nodes)
            if layout.weighted and not problem and not _is_number(fields[2]):
                problem = f"expected a weight, got {fields[2]!r}"
            if problem:
                raise ValueError(f"{path}:{number}: {problem}: {line.strip()[:80]!r}")
    raise ValueError(f"{path}: {found}")


def _wrong_id(field: str, relabel: bool, num_nodes: int | None) -> str | None:
    try:
        value = int(field)
    except ValueError:
        return f"expected an integer id, got {field.strip()!r}"
    if abs(value) > np.iinfo(np.int64).max:
        return f"id {value} does not fit 64 bits"
    if relabel:
        return None
    if value < 0:
        return f"id {value} is negative (relabel=True accepts any integer)"
    if num_nodes is not None and value >= num_nodes:
        return f"id {value} is out of range, expected an id in [0, {num_nodes})"
    return None


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
