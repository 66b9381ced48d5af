"""torch_sparse's `SparseTensor` and functions, with products on gnnkern's kernels.

    from gnnkern.compat.torch_sparse import SparseTensor, matmul

See `gnnkern.compat.install` for models that import torch_sparse itself. Names, arguments and the
order of entries are torch_sparse's; products take every precision and repeat bit for bit. Samplers,
walks and partitions are not here.
"""

from typing import NoReturn

from gnnkern.compat.torch_sparse.arithmetic import (
    add,
    add_,
    add_nnz,
    add_nnz_,
    mul,
    mul_,
    mul_nnz,
    mul_nnz_,
)
from gnnkern.compat.torch_sparse.convert import (
    coalesce,
    eye,
    from_scipy,
    from_torch_sparse,
    to_scipy,
    to_torch_sparse,
    transpose,
)
from gnnkern.compat.torch_sparse.diagonal import fill_diag, get_diag, remove_diag, set_diag
from gnnkern.compat.torch_sparse.products import matmul, spmm, spspmm
from gnnkern.compat.torch_sparse.reduce import max, mean, min, sum
from gnnkern.compat.torch_sparse.selection import (
    cat,
    index_select,
    index_select_nnz,
    masked_select,
    masked_select_nnz,
    narrow,
    permute,
    select,
    t,
)
from gnnkern.compat.torch_sparse.storage import SparseStorage
from gnnkern.compat.torch_sparse.tensor import SparseTensor

# Of the release whose conventions these are.
__version__ = "0.6.18"

__all__ = [
    "SparseStorage",
    "SparseTensor",
    "add",
    "add_",
    "add_nnz",
    "add_nnz_",
    "cat",
    "coalesce",
    "eye",
    "fill_diag",
    "from_scipy",
    "from_torch_sparse",
    "get_diag",
    "index_select",
    "index_select_nnz",
    "masked_select",
    "masked_select_nnz",
    "matmul",
    "max",
    "mean",
    "min",
    "mul",
    "mul_",
    "mul_nnz",
    "mul_nnz_",
    "narrow",
    "permute",
    "remove_diag",
    "select",
    "set_diag",
    "spmm",
    "spspmm",
    "sum",
    "t",
    "to_scipy",
    "to_torch_sparse",
    "transpose",
]

_ABSENT = (
    "hgt_sample",
    "padded_index",
    "partition",
    "random_walk",
    "reverse_cuthill_mckee",
    "saint_subgraph",
    "sample",
    "sample_adj",
)


def __getattr__(name: str) -> NoReturn:
    if name in _ABSENT:
        raise AttributeError(
            f"torch_sparse.{name}: gnnkern stands in for torch_sparse's matrices and products "
            "alone; install torch_sparse for its samplers and partitions"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
