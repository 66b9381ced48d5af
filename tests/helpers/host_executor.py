"""The module that runs the CUDA kernels on this processor (`make cuda-host` builds it)."""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from .cases import Call
from .checks import check_gradient, same_bits, value_and_gradients

_FOLDER = Path(__file__).resolve().parents[2] / "build/cuda_host"

# Of the order in which blocks and threads run.
SEEDS = (1, 2, 3)

NOT_BUILT = "the host executor is not built (`make cuda-host` builds it)"


@cache
def host_module() -> ModuleType | None:
    """Return `_cuda_host`, or None where it has not been built."""
    files = sorted(_FOLDER.glob("_cuda_host.*.so"))
    if not files:
        return None
    spec = importlib.util.spec_from_file_location("_cuda_host", files[0])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_rows_that_begin_anywhere(call: Call) -> None:
    """Compare the gradients where one tensor alone is not aligned: all are read by elements."""
    for moved in range(len(call.tensors)):
        shifted = [
            torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape) if i == moved else x
            for i, x in enumerate(call.tensors)
        ]
        check_gradient(Call(call.op, call.reference, tuple(shifted)), "cuda")


def check_every_order_of_threads(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...]
) -> None:
    """Assert equal bits of value and gradients in three orders, of which a GPU chooses its own."""
    host = host_module()
    if host is None or tensors[0].device.type != "cpu":
        pytest.skip("the order of threads is the device's own")
    results = []
    for seed in SEEDS:
        host.set_seed(seed)
        try:
            results.append(value_and_gradients(function, tensors))
        finally:
            host.set_seed(0)
    for again in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], again, strict=True))
