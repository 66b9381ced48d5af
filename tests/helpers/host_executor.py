"""The module that runs the CUDA kernels on this processor (`make cuda-host` builds it)."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).resolve().parents[2] / "build/cuda_host"

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
