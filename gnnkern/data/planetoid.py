"""Reader of Planetoid's raw files: the citation graphs Cora, CiteSeer and PubMed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gnnkern.data._files import (
    IntArray,
    StrPath,
    existing_file,
    existing_folder,
    naming,
    read_table,
    undirected_edges,
)
from gnnkern.data._unpickle import PickledArray, PickledCsr, load_arrays
from gnnkern.data.graph_data import UNLABELLED, GraphData

_NUM_VAL = 500


def read_planetoid(path: StrPath, *, name: str | None = None) -> GraphData:
    """Read the files `ind.<name>.{x,y,tx,ty,allx,ally,graph,test.index}` of a folder.

    The files are pickles of Python 2. They are read, not run: only arrays, CSR matrices and dicts
    are understood, and a pickle that names anything else is refused. scipy is not needed.

    The split is the public one: the nodes of `x` train, the next 500 (or as many as there are
    before the test nodes) validate, those of `test.index` test. A test node without a row in `tx`,
    as the isolated ones of CiteSeer, has zero features and no label. Features are float32, as in
    the file, without normalisation. Both directions of every edge are stored once, sorted by
    destination, without self loops.

    Source: Yang, Cohen, Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings",
    ICML 2016.

    Args:
        path: the folder with the files, or one that holds them in a folder `raw`.
        name: which data set, as in the file names; not needed where there is just one.

    Raises:
        FileNotFoundError: the folder or one of the eight files is not there.
        ValueError: a refused or damaged pickle, or sizes and ids that do not fit together; the
            message names the file and the first offending element.

    Cost: the features as a dense matrix.
    """
    folder = existing_folder(path)
    if not any(folder.glob("ind.*.graph")) and (folder / "raw").is_dir():
        folder = folder / "raw"
    name = name or _only_name(folder)
    parts = {part: folder / f"ind.{name}.{part}" for part in _PARTS}
    for file in parts.values():
        existing_file(file)

    num_train = len(_read_matrix(parts["y"]))
    allx, ally = _read_matrix(parts["allx"]), _read_matrix(parts["ally"])
    tx, ty = _read_matrix(parts["tx"]), _read_matrix(parts["ty"])
    _check_rows(parts["ally"], ally, len(allx), ally.shape[1])
    _check_rows(parts["tx"], tx, len(tx), allx.shape[1])
    _check_rows(parts["ty"], ty, len(tx), ally.shape[1])
    if not num_train <= len(allx):
        raise ValueError(f"{parts['y']}: {num_train} rows, expected at most {len(allx)} as in allx")
    test = _read_test_index(parts["test.index"], len(tx), len(allx))  # [tests]
    links = _read_links(parts["graph"])
    num_nodes = max(len(allx), int(test.max(initial=-1)) + 1, len(links))

    x = np.zeros((num_nodes, allx.shape[1]), dtype=np.float32)
    one_hot = np.zeros((num_nodes, ally.shape[1]), dtype=ally.dtype)
    x[: len(allx)], one_hot[: len(ally)] = allx, ally
    x[test], one_hot[test] = tx, ty
    labelled = one_hot.any(axis=1) if one_hot.shape[1] else np.zeros(num_nodes, dtype=np.bool_)
    y = np.full(num_nodes, UNLABELLED, dtype=np.int64)
    y[labelled] = one_hot[labelled].argmax(axis=1)

    masks = np.zeros((3, 1, num_nodes), dtype=np.bool_)
    masks[0, 0, :num_train] = True
    masks[1, 0, num_train : min(num_train + _NUM_VAL, len(allx))] = True
    masks[2, 0, test] = True
    with naming(parts["graph"]):
        pairs = _pairs(links, num_nodes)
        edge_index = undirected_edges(pairs, num_nodes, keep_loops=False)
    with naming(folder):
        return GraphData(
            name=name,
            edge_index=torch.from_numpy(edge_index),
            num_nodes=num_nodes,
            x=torch.from_numpy(x),
            y=torch.from_numpy(y),
            train_mask=torch.from_numpy(masks[0]),
            val_mask=torch.from_numpy(masks[1]),
            test_mask=torch.from_numpy(masks[2]),
        )


_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


def _only_name(folder: Path) -> str:
    names = sorted(file.name[len("ind.") : -len(".graph")] for file in folder.glob("ind.*.graph"))
    if not names:
        raise FileNotFoundError(f"no such file: {folder / 'ind.<name>.graph'}")
    if len(names) > 1:
        raise ValueError(f"{folder}: several data sets, choose one by name=: {names}")
    return names[0]


def _load(file: Path) -> Any:
    with naming(file), file.open("rb") as content:
        return load_arrays(content)


def _read_matrix(file: Path) -> npt.NDArray[Any]:
    """Return a pickled matrix, sparse or dense, [rows, columns]."""
    value = _load(file)
    with naming(file):
        if isinstance(value, PickledCsr):
            return value.to_dense()
        if isinstance(value, PickledArray) and value.values.ndim == 2:
            return value.values
        raise ValueError("expected a matrix")


def _check_rows(file: Path, matrix: npt.NDArray[Any], rows: int, columns: int) -> None:
    if matrix.shape != (rows, columns):
        raise ValueError(f"{file}: expected shape {[rows, columns]}, got {list(matrix.shape)}")


def _read_test_index(file: Path, num_tests: int, first: int) -> IntArray:
    with naming(file):
        ids = read_table(file, np.int64, min_dims=1).reshape(-1)
        if len(ids) != num_tests:
            raise ValueError(f"expected {num_tests} ids, one per row of tx, got {len(ids)}")
        if len(ids) and int(ids.min()) < first:
            row = int(np.flatnonzero(ids < first)[0])
            raise ValueError(f"id {ids[row]} on line {row + 1}, expected ids from {first} on")
        values, counts = np.unique(ids, return_counts=True)
        if len(values) != len(ids):
            raise ValueError(f"id {values[counts > 1][0]} is repeated")
        return ids


def _read_links(file: Path) -> dict[int, list[int]]:
    links = _load(file)
    if not isinstance(links, dict):
        raise ValueError(f"{file}: expected a dict from node to neighbours")
    for node, neighbours in links.items():
        if not isinstance(node, int) or not isinstance(neighbours, list):
            raise ValueError(f"{file}: node {node!r} must be an int with a list of neighbours")
    return links


def _pairs(links: dict[int, list[int]], num_nodes: int) -> IntArray:
    """Return every (node, neighbour), [E, 2]."""
    for node, neighbours in links.items():
        for other in (node, *neighbours):
            if not isinstance(other, int) or not 0 <= other < num_nodes:
                raise ValueError(
                    f"node {node} has neighbour {other!r}, expected ids in [0, {num_nodes})"
                )
    counts = [len(neighbours) for neighbours in links.values()]
    nodes = np.repeat(np.fromiter(links, dtype=np.int64, count=len(links)), counts)
    others = np.fromiter(
        (other for neighbours in links.values() for other in neighbours),
        dtype=np.int64,
        count=sum(counts),
    )
    return np.stack([nodes, others], axis=1)
