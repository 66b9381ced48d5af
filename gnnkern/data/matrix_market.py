"""Reader of Matrix Market files, through scipy."""

from __future__ import annotations

import numpy as np
import torch

from gnnkern.data._files import StrPath, existing_file, naming, stem
from gnnkern.data.graph_data import GraphData


def read_matrix_market(path: StrPath, *, name: str | None = None) -> GraphData:
    """Read a sparse matrix `A` from a `.mtx` or `.mtx.gz` file as the graph of `A @ x`.

    Entry `A[i, j]` is an edge from j to i (rows are destinations, as in `Graph.from_scipy`), so
    that `spmm(data.graph(), x, data.edge_weight)` is `A @ x`. A symmetric matrix gives both
    directions; a rectangular one gives a bipartite graph with a source per column and a destination
    per row. A `pattern` file has no `edge_weight`; other fields give float32 weights. Stored zeros
    and repeated entries stay edges; of a dense (`array`) matrix, the nonzeros are the edges.

    Format: Boisvert, Pozo, Remington, "The Matrix Market exchange formats", NISTIR 5935, 1996.

    Args:
        path: the file.
        name: name of the graph; the file's stem by default.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: scipy is not installed.
        ValueError: not a Matrix Market file, or complex entries; the message names the file.

    Cost: one pass over the file, and twice the entries in memory.
    """
    path = existing_file(path)
    try:
        import scipy.io
        import scipy.sparse
    except ImportError as error:
        raise ImportError(
            "reading Matrix Market files needs scipy: pip install 'gnnkern[data]'"
        ) from error

    with naming(path):
        num_dst, num_src, _, _, field, _ = scipy.io.mminfo(str(path))
        if field == "complex":
            raise ValueError("complex entries cannot be edge weights")
        matrix = scipy.sparse.coo_matrix(scipy.io.mmread(str(path)))
        edge_index = np.empty((2, matrix.nnz), dtype=np.int64)
        edge_index[0], edge_index[1] = matrix.col, matrix.row
        weight = None if field == "pattern" else torch.from_numpy(matrix.data.astype(np.float32))
        return GraphData(
            name=name or stem(path),
            edge_index=torch.from_numpy(edge_index),
            num_nodes=int(num_src),
            num_dst=int(num_dst),
            edge_weight=weight,
        )
