"""Reader of the CSV folders of the Open Graph Benchmark, for node property prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnnkern.data._files import (
    StrPath,
    check_ids,
    existing_folder,
    naming,
    read_table,
    with_reversed,
)
from gnnkern.data.graph_data import UNLABELLED, GraphData


def read_ogb(
    path: StrPath,
    *,
    name: str | None = None,
    split: str | None = None,
    undirected: bool = False,
) -> GraphData:
    """Read an extracted OGB data set of node property prediction, such as `ogbn_arxiv`.

    Files, each plain or `.gz`: `raw/edge.csv`, two columns source and destination;
    `raw/num-node-list.csv`, one number; `raw/node-feat.csv` and `raw/node-label.csv`, one row per
    node, optional; `split/<scheme>/{train,valid,test}.csv`, node ids, optional. A label `nan` is
    unlabelled. Edges keep the order of the file.

    Source: Hu et al., "Open Graph Benchmark: datasets for machine learning on graphs", NeurIPS
    2020.

    Args:
        path: the data set's folder, which holds `raw`.
        name: name of the graph; the folder's name by default.
        split: name of the folder under `split`; not needed where there is just one.
        undirected: append the reverse of every edge but the self loops (repeated edges stay).

    Raises:
        FileNotFoundError: the folder or a required file is not there.
        ValueError: a wrong number of rows, a value of the wrong kind, an id out of range, or more
            than one label per node; the message names the file and the row.

    Cost: about 0.1 microseconds per number; features are read straight into float32.
    """
    folder = existing_folder(path)
    raw = folder / "raw"
    num_nodes = _read_num_nodes(_required(raw, "num-node-list"))
    edge_file = _required(raw, "edge")
    with naming(edge_file):
        pairs = read_table(edge_file, np.int64, delimiter=",")  # [E, 2]
        if pairs.size == 0:
            pairs = pairs.reshape(0, 2)
        if pairs.shape[1] != 2:
            raise ValueError(f"expected 2 columns, source and destination, got {pairs.shape[1]}")
        edge_index = np.ascontiguousarray(check_ids("edge", pairs, num_nodes).T)
    if undirected:
        edge_index, _ = with_reversed(edge_index, None)
    masks = _read_split(folder, split, num_nodes)
    with naming(folder):
        return GraphData(
            name=name or folder.resolve().name,
            edge_index=torch.from_numpy(edge_index),
            num_nodes=num_nodes,
            x=_read_features(_table(raw, "node-feat"), num_nodes),
            y=_read_labels(_table(raw, "node-label"), num_nodes),
            train_mask=masks.get("train"),
            val_mask=masks.get("valid"),
            test_mask=masks.get("test"),
        )


def _table(folder: Path, table: str) -> Path | None:
    candidates = (folder / f"{table}.csv.gz", folder / f"{table}.csv")
    return next((file for file in candidates if file.is_file()), None)


def _required(folder: Path, table: str) -> Path:
    file = _table(folder, table)
    if file is None:
        raise FileNotFoundError(f"no such file: {folder / table}.csv.gz (or .csv)")
    return file


def _read_num_nodes(file: Path) -> int:
    with naming(file):
        counts = read_table(file, np.int64, delimiter=",", min_dims=1).reshape(-1)
        if len(counts) != 1 or counts[0] < 0:
            raise ValueError(f"expected the number of nodes of one graph, got {counts.tolist()}")
        return int(counts[0])


def _read_features(file: Path | None, num_nodes: int) -> Tensor | None:
    if file is None:
        return None
    with naming(file):
        features = read_table(file, np.float32, delimiter=",")  # [N, F]
        if len(features) != num_nodes:
            raise ValueError(f"expected {num_nodes} rows, one per node, got {len(features)}")
        return torch.from_numpy(features)


def _read_labels(file: Path | None, num_nodes: int) -> Tensor | None:
    if file is None:
        return None
    with naming(file):
        # As float64: a data set with unlabelled nodes writes its labels as "3.0" and "nan".
        labels = read_table(file, np.float64, delimiter=",")  # [N, tasks]
        if len(labels) != num_nodes:
            raise ValueError(f"expected {num_nodes} rows, one per node, got {len(labels)}")
        if labels.size and labels.shape[1] != 1:
            raise ValueError(f"expected one label per node, got {labels.shape[1]} columns")
        values = np.where(np.isnan(labels), UNLABELLED, labels).reshape(-1)
        bad = np.flatnonzero((values != np.floor(values)) | np.isinf(values))
        if len(bad):
            raise ValueError(f"row {bad[0]} is {values[bad[0]]}, expected a whole number")
        return torch.from_numpy(values.astype(np.int64))


def _read_split(folder: Path, split: str | None, num_nodes: int) -> dict[str, Tensor]:
    root = folder / "split"
    schemes = (
        sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    )
    if split is None:
        if len(schemes) > 1:
            raise ValueError(f"{root}: several splits, choose one by split=: {schemes}")
        if not schemes:
            return {}
        split = schemes[0]
    elif split not in schemes:
        raise ValueError(f"{root}: no split {split!r}, there is {schemes or 'none'}")
    masks = {}
    for part in ("train", "valid", "test"):
        file = _required(root / split, part)
        with naming(file):
            ids = read_table(file, np.int64, delimiter=",", min_dims=1).reshape(-1)
            mask = torch.zeros(1, num_nodes, dtype=torch.bool)
            mask[0, torch.from_numpy(check_ids(part, ids, num_nodes))] = True
        masks[part] = mask  # [1, N]
    return masks
