"""Where the op tests put what they make: `pytest tests/ops --device cuda` says a GPU.

There the backends for GPUs run, compared with the reference in float64 on the same device.
"""

import torch
from torch import Tensor

_HOST = ("cpu", "reference")


class Placement:
    """The device of this run, set once before any test is collected."""

    device = torch.device("cpu")


def place(tensor: Tensor) -> Tensor:
    """Return the tensor on the device of this run."""
    return tensor.to(Placement.device)


def runs_here(backend: str) -> bool:
    """Return whether the op tests run over a backend.

    Triton's interpreter takes milliseconds for each program, and the host executor is slow as well:
    their tests are in `tests/device`, smaller. On a GPU the reference is what others are compared
    with.
    """
    return (
        backend not in ("triton", "cuda")
        if Placement.device.type == "cpu"
        else backend not in _HOST
    )
