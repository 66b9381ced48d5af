"""Launchers of GAT attention by the kernels in Triton."""

from gnnkern._triton.attention_loops import LOOPS

__all__ = ["gat_backward", "gat_forward"]

gat_forward = LOOPS.gat_forward
gat_backward = LOOPS.gat_backward
