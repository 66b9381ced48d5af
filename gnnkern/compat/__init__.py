"""Other packages' names on gnnkern's kernels."""
