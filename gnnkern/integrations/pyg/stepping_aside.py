"""When a patched function leaves a call to PyG, and why."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gnnkern import _native
from gnnkern.backends import FLOAT_DTYPES

__all__ = ["observed", "reason_against", "reason_against_index"]

_PLAIN = (Tensor, torch.nn.Parameter)


def observed() -> str | None:
    """Why nothing may be replaced now: somebody reads the operations themselves."""
    if torch.compiler.is_compiling():
        return "compiling"
    if torch._C._get_tracing_state() is not None:
        return "tracing"
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func"
    if forward_ad._current_level >= 0:
        return "forward mode"
    if torch._C._len_torch_dispatch_stack() > 0:
        return "a dispatch mode, such as fake tensors or export"
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        return "capture of a CUDA graph"
    return None


def reason_against(*tensors: Tensor) -> str | None:
    """Why the kernels cannot take these values; None: they can."""
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            return "no tensor"
        if type(tensor) not in _PLAIN:
            return f"a tensor of type {type(tensor).__name__}"
        if tensor.dtype not in FLOAT_DTYPES:
            return f"values of {tensor.dtype}"
        if tensor.layout != torch.strided:
            return f"layout {tensor.layout}"
        if not _has_kernels(tensor):
            return f"no kernels for {tensor.device.type} tensors"
    return None


def _has_kernels(tensor: Tensor) -> bool:
    if tensor.is_cpu:
        return _native.native is not None
    return tensor.is_cuda


def reason_against_index(index: Tensor | None) -> str | None:
    """Why an index cannot name groups; None: it can."""
    if not isinstance(index, Tensor):
        return "no index"
    if type(index) not in _PLAIN:
        return f"an index of type {type(index).__name__}"
    if index.dtype not in (torch.int32, torch.int64) or index.dim() != 1:
        return f"an index of {index.dtype} with {index.dim()} dimensions"
    return None
