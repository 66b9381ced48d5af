"""Launchers of the C++ kernels, one file per kernel: outputs allocated, addresses passed.

Nothing here checks shapes: the public ops have done so.
"""
