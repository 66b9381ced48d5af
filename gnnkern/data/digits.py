"""The embedded default: a nearest-neighbour graph over scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from gnnkern.data._files import IntArray, undirected_edges
from gnnkern.data.graph_data import GraphData


def digits_graph(
    *,
    k: int = 8,
    train_per_class: int = 10,
    num_val: int = 300,
    num_splits: int = 1,
    seed: int = 0,
) -> GraphData:
    """Return a graph of 1,797 scanned digits, each joined to those whose pixels are nearest.

    Features are the 64 pixels scaled to [0, 1]; labels are the digits. Two digits are joined, in
    both directions, if either is among the other's `k` nearest by Euclidean distance; equal
    distances go to the lower id, so the graph is the same on every machine. Every split takes
    `train_per_class` random nodes of each class for training, `num_val` for validation in the
    proportions of the classes, and the rest for the test.

    Data: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI repository,
    1998, as bundled with scikit-learn.

    Args:
        k: neighbours per node, from 1 to 1,796.
        train_per_class: training nodes per class.
        num_val: validation nodes.
        num_splits: number of splits S.
        seed: seed of the splits; the graph does not depend on it.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: a size that the data cannot give.

    Cost: all 3.2 million distances, about 0.1 seconds and 60 MB.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits graph needs scikit-learn: pip install 'gnnkern[data]'"
        ) from error

    pixels, labels = load_digits(return_X_y=True)  # [N, 64] in 0..16, [N]
    pixels = np.asarray(pixels).astype(np.int64)
    labels = np.asarray(labels).astype(np.int64)
    num_nodes = len(labels)
    if not 1 <= k < num_nodes:
        raise ValueError(f"digits_graph: k must be from 1 to {num_nodes - 1}, got {k}")
    if num_splits < 1:
        raise ValueError(f"digits_graph: num_splits must be at least 1, got {num_splits}")

    near = _nearest(pixels, k)  # [N, k]
    pairs = np.stack([np.repeat(np.arange(num_nodes), k), near.reshape(-1)], axis=1)
    rng = np.random.default_rng(seed)
    parts = np.stack([_split(labels, train_per_class, num_val, rng) for _ in range(num_splits)])
    return GraphData(
        name="digits",
        edge_index=torch.from_numpy(undirected_edges(pairs, num_nodes)),
        num_nodes=num_nodes,
        x=torch.from_numpy((pixels / 16).astype(np.float32)),
        y=torch.from_numpy(labels),
        train_mask=torch.from_numpy(parts == _TRAIN),
        val_mask=torch.from_numpy(parts == _VAL),
        test_mask=torch.from_numpy(parts == _TEST),
    )


_TEST, _TRAIN, _VAL = 0, 1, 2


def _nearest(pixels: IntArray, k: int) -> IntArray:
    """Return the k nearest rows of every row, [N, k], in exact integer arithmetic."""
    num_nodes = len(pixels)
    square = (pixels**2).sum(axis=1)  # [N]
    # Products of pixels up to 16 stay far below 2^53: the float matrix product is exact.
    dot = (pixels.astype(np.float64) @ pixels.T.astype(np.float64)).astype(np.int64)  # [N, N]
    distance = square[:, None] + square[None, :] - 2 * dot  # [N, N]
    np.fill_diagonal(distance, distance.max() + 1)
    # Distance and id in one key: every key differs, so which k are smallest is never in doubt.
    keys = distance * num_nodes + np.arange(num_nodes)  # [N, N]
    return np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1) % num_nodes


def _split(
    labels: IntArray,  # [N]
    train_per_class: int,
    num_val: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int8]:
    """Return the part of every node, [N]: _TRAIN, _VAL or _TEST."""
    part = np.full(len(labels), _TEST, dtype=np.int8)
    rest, position = [], []
    for label in np.unique(labels):
        nodes = rng.permutation(np.flatnonzero(labels == label))
        if not 0 <= train_per_class <= len(nodes):
            raise ValueError(
                f"digits_graph: train_per_class must be from 0 to {len(nodes)} "
                f"(class {label}), got {train_per_class}"
            )
        part[nodes[:train_per_class]] = _TRAIN
        others = nodes[train_per_class:]
        rest.append(others)
        # Position in the class from 0 to 1: a cut at any level takes the same share of every class.
        position.append((np.arange(len(others)) + 0.5) / max(len(others), 1))
    order = np.concatenate(rest)[np.argsort(np.concatenate(position), kind="stable")]
    if not 0 <= num_val <= len(order):
        raise ValueError(f"digits_graph: num_val must be from 0 to {len(order)}, got {num_val}")
    part[order[:num_val]] = _VAL
    return part
