"""Other libraries' models on gnnkern's kernels."""
