"""Packages that graph libraries import, under their names, on gnnkern's kernels.

    gnnkern.compat.torch_scatter    scatter, segment_csr, scatter_softmax and the others
    gnnkern.compat.torch_sparse     SparseTensor, matmul, spmm
    gnnkern.compat.pyg_lib          ops.segment_matmul and the others, sampler.neighbor_sample

Where one of these packages is missing, `install()` puts the stand-in in its place.
"""

from gnnkern.compat.stand_ins import PACKAGES, install, uninstall

__all__ = ["PACKAGES", "install", "uninstall"]
