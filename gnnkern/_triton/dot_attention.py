"""Launchers of dot-product attention by the kernels in Triton."""

from gnnkern._triton.attention_loops import LOOPS

__all__ = ["dot_backward", "dot_forward"]

dot_forward = LOOPS.dot_forward
dot_backward = LOOPS.dot_backward
