"""How tensors are handed to CUDA launchers: their device made current, its stream passed last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gnnkern import _cuda

__all__ = ["launch"]


def launch(name: str, device: torch.device, *arguments: Any) -> None:
    """Call the launcher of that name on torch's current stream of a device.

    A tensor is passed as its address and None as 0; everything else as it is. The caller keeps the
    tensors alive: torch's allocator gives their memory to nothing but later work of the stream.

    Raises:
        RuntimeError: the launch failed; the message names the op.
    """
    values = [
        argument.data_ptr() if isinstance(argument, Tensor) else 0 if argument is None else argument
        for argument in arguments
    ]
    launcher = getattr(_cuda.module(), name)
    if device.type != "cuda":
        launcher(*values, 0)
    elif device.index == torch.cuda.current_device():
        launcher(*values, torch.cuda.current_stream(device).cuda_stream)
    else:
        with torch.cuda.device(device):
            launcher(*values, torch.cuda.current_stream(device).cuda_stream)
