"""Launchers of GATv2 attention by the kernels in CUDA."""

from gnnkern._cuda.attention_loops import LOOPS

__all__ = ["gatv2_backward", "gatv2_forward"]

gatv2_forward = LOOPS.gatv2_forward
gatv2_backward = LOOPS.gatv2_backward
