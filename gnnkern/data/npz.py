"""Reader of `.npz` graphs: features, labels, undirected edges and splits in one file."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gnnkern.data._files import (
    StrPath,
    check_ids,
    existing_file,
    naming,
    stem,
    undirected_edges,
)
from gnnkern.data.graph_data import GraphData

Arrays = dict[str, npt.NDArray[Any]]


def read_npz(path: StrPath, *, name: str | None = None) -> GraphData:
    """Read a graph from an `.npz` file; no pickled object in it is ever loaded.

    Fields of the file: `edges` integer [E, 2], undirected; `node_features` [N, F]; `node_labels`
    integer [N] with -1 for unlabelled; `train_masks`, `val_masks`, `test_masks` bool [S, N], or [N]
    for a single split. Only `edges` and one of `node_features` and `node_labels` are required;
    other fields are ignored. Each pair is stored in both directions, repeated pairs and self loops
    once, sorted by destination. Features become float32.

    The layout is that of the heterophilous graph data sets (Platonov et al., "A critical look at
    the evaluation of GNNs under heterophily", ICLR 2023).

    Args:
        path: the file.
        name: name of the graph; the file's stem by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an `.npz` file, a missing field, or a wrong shape, type or value; the
            message names the file, the field and the first offending element.

    Cost: one pass over the file and a sort of the edges.
    """
    path = existing_file(path)
    with naming(path):
        arrays = _read_arrays(path)
        num_nodes = _count_nodes(arrays)
        pairs = arrays["edges"]
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise ValueError(f"edges must have shape [E, 2], got {list(pairs.shape)}")
        edge_index = undirected_edges(check_ids("edges", pairs, num_nodes), num_nodes)
        return GraphData(
            name=name or stem(path),
            edge_index=torch.from_numpy(edge_index),
            num_nodes=num_nodes,
            x=_features(arrays),
            y=_labels(arrays),
            train_mask=_mask(arrays, "train_masks"),
            val_mask=_mask(arrays, "val_masks"),
            test_mask=_mask(arrays, "test_masks"),
        )


def _read_arrays(path: StrPath) -> Arrays:
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"not a readable .npz file: {error}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("expected an .npz archive, got a single array")
    wanted = ("edges", "node_features", "node_labels", "train_masks", "val_masks", "test_masks")
    with archive:
        if "edges" not in archive.files:
            raise ValueError(f"field 'edges' is missing, the file has {sorted(archive.files)}")
        try:
            return {field: archive[field] for field in wanted if field in archive.files}
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"the archive is damaged: {error}") from error


def _count_nodes(arrays: Arrays) -> int:
    for field in ("node_features", "node_labels"):
        if field in arrays:
            if arrays[field].ndim == 0:
                raise ValueError(f"{field} must have one row per node, got a single value")
            return len(arrays[field])
    raise ValueError("node_features or node_labels is required, to know the number of nodes")


def _features(arrays: Arrays) -> Tensor | None:
    features = arrays.get("node_features")
    if features is None:
        return None
    if features.dtype.kind not in "biuf":
        raise ValueError(f"node_features must hold numbers, got {features.dtype}")
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))


def _labels(arrays: Arrays) -> Tensor | None:
    labels = arrays.get("node_labels")
    if labels is None:
        return None
    if labels.dtype.kind not in "iu":
        raise ValueError(f"node_labels must hold integers, got {labels.dtype}")
    return torch.from_numpy(labels.astype(np.int64, copy=False))


def _mask(arrays: Arrays, field: str) -> Tensor | None:
    mask = arrays.get(field)
    if mask is None:
        return None
    if mask.dtype != np.bool_:
        raise ValueError(f"{field} must be bool, got {mask.dtype}")
    return torch.from_numpy(np.atleast_2d(mask))
