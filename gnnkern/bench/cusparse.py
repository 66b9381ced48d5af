"""cuSPARSE's product of a CSR matrix with a dense one, called as its documentation advises.

What depends on the matrix and the shapes alone is made once: handle, descriptors, workspace, and
the preprocessing of every algorithm, of which the fastest is kept.

Source: the cuSPARSE library's documentation, generic API: `cusparseSpMM`.
"""

from __future__ import annotations

import ctypes
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref, c_double, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Of the library's enumerations.
_NON_TRANSPOSE = 0
_INDEX = {torch.int32: 2, torch.int64: 3}
_BASE_ZERO = 0
_ROW_MAJOR = 2
_TYPE = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 14}
_COMPUTE = {torch.float64: 1}  # others in float32
_COMPUTE_DEFAULT = 0
# All that take CSR; of ALG1 and ALG3 the preprocessing is said to help, ALG2 is for row-major.
ALGORITHMS = {"CSR_ALG1": 4, "CSR_ALG2": 6, "CSR_ALG3": 12}

_P = c_void_p
_SPMM = (_P, c_int, c_int, _P, _P, _P, _P, _P, c_int, c_int)
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cusparseCreate": (_P,),
    "cusparseDestroy": (_P,),
    "cusparseGetProperty": (c_int, _P),
    "cusparseSetStream": (_P, _P),
    "cusparseCreateCsr": (_P, c_int64, c_int64, c_int64, _P, _P, _P, c_int, c_int, c_int, c_int),
    "cusparseCreateDnMat": (_P, c_int64, c_int64, c_int64, _P, c_int, c_int),
    "cusparseDnMatSetValues": (_P, _P),
    "cusparseDestroySpMat": (_P,),
    "cusparseDestroyDnMat": (_P,),
    "cusparseSpMM_bufferSize": (*_SPMM, _P),
    "cusparseSpMM_preprocess": (*_SPMM, _P),
    "cusparseSpMM": (*_SPMM, _P),
}
_TRIALS = 3


class CusparseError(RuntimeError):
    """A call that returned another status than success."""


def _names() -> Iterator[str]:
    """Where the library may be: loaded with torch, beside it, or with the CUDA toolkit."""
    yield from ("libcusparse.so.12", "libcusparse.so.13", "libcusparse.so")
    for folder, pattern in (
        (sysconfig.get_path("purelib"), "nvidia/*/lib/libcusparse.so*"),
        ("/usr/local/cuda/lib64", "libcusparse.so*"),
    ):
        yield from map(str, sorted(Path(folder).glob(pattern)))


@lru_cache
def load() -> Any:
    """The library.

    Raises:
        OSError: It is nowhere.
    """
    for name in _names():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, arguments in _SIGNATURES.items():
            getattr(library, function).argtypes = arguments
        return library
    raise OSError("libcusparse is neither loaded with torch nor installed")


def version() -> str:
    """Of the library, as 12.6.3."""
    parts = []
    for part in range(3):
        number = c_int()
        _call(load(), "cusparseGetProperty", part, byref(number))
        parts.append(str(number.value))
    return ".".join(parts)


def _call(library: Any, name: str, *arguments: Any) -> None:
    status = getattr(library, name)(*arguments)
    if status:
        raise CusparseError(f"{name} returned status {status}")


class Product:
    """out = A x of a matrix [num_rows, num_cols] and every x [num_cols, width] of one width.

    Args:
        indptr: [num_rows + 1] int32 or int64.
        indices: [E] of the same dtype.
        values: [E] of the dtype of x.
        num_cols: Columns of A.
        width: Columns of x.
        algorithm: A value of `ALGORITHMS`.
        library: The library, or what stands in for it.

    Raises:
        CusparseError: The algorithm does not take such a product.
    """

    def __init__(
        self,
        indptr: Tensor,
        indices: Tensor,
        values: Tensor,
        num_cols: int,
        width: int,
        algorithm: int,
        library: Any = None,
    ) -> None:
        self._library = load() if library is None else library
        self._shape = (indptr.shape[0] - 1, width)
        # Their addresses are in the descriptors.
        self._kept = (indptr, indices, values)
        self._device = values.device
        dtype = values.dtype
        scalar = c_double if dtype == torch.float64 else c_float
        self._alpha, self._beta = scalar(1), scalar(0)
        self._handle, self._sparse, self._in, self._out = (c_void_p() for _ in range(4))
        self._call("cusparseCreate", byref(self._handle))
        self._call(
            "cusparseCreateCsr",
            byref(self._sparse),
            self._shape[0],
            num_cols,
            indices.shape[0],
            indptr.data_ptr(),
            indices.data_ptr(),
            values.data_ptr(),
            _INDEX[indptr.dtype],
            _INDEX[indices.dtype],
            _BASE_ZERO,
            _TYPE[dtype],
        )
        x = values.new_zeros(num_cols, width)
        out = values.new_empty(self._shape)
        for descriptor, dense in ((self._in, x), (self._out, out)):
            size = (dense.shape[0], width, width)
            where = dense.data_ptr()
            self._call(
                "cusparseCreateDnMat", byref(descriptor), *size, where, _TYPE[dtype], _ROW_MAJOR
            )
        self._arguments = (
            self._handle,
            _NON_TRANSPOSE,
            _NON_TRANSPOSE,
            byref(self._alpha),
            self._sparse,
            self._in,
            byref(self._beta),
            self._out,
            _COMPUTE.get(dtype, _COMPUTE_DEFAULT),
            algorithm,
        )
        self._set_stream()
        workspace = c_size_t()
        self._call("cusparseSpMM_bufferSize", *self._arguments, byref(workspace))
        self._workspace = values.new_empty(max(workspace.value, 1), dtype=torch.uint8)
        self._call("cusparseSpMM_preprocess", *self._arguments, self._workspace.data_ptr())

    def __call__(self, x: Tensor) -> Tensor:
        """The product, on torch's current stream."""
        x = x.contiguous()
        out = x.new_empty(self._shape)
        self._set_stream()
        self._call("cusparseDnMatSetValues", self._in, x.data_ptr())
        self._call("cusparseDnMatSetValues", self._out, out.data_ptr())
        self._call("cusparseSpMM", *self._arguments, self._workspace.data_ptr())
        return out

    def __del__(self) -> None:
        """Free what the library holds."""
        for name, held in (
            ("cusparseDestroyDnMat", "_in"),
            ("cusparseDestroyDnMat", "_out"),
            ("cusparseDestroySpMat", "_sparse"),
            ("cusparseDestroy", "_handle"),
        ):
            if getattr(self, held, None):
                getattr(self._library, name)(getattr(self, held))

    def _set_stream(self) -> None:
        if self._device.type == "cuda":
            stream = torch.cuda.current_stream(self._device).cuda_stream
            self._call("cusparseSetStream", self._handle, stream)

    def _call(self, name: str, *arguments: Any) -> None:
        _call(self._library, name, *arguments)


def fastest(
    make: Callable[[int], Product],
    x: Tensor,
    seconds_of: Callable[[Callable[[], object]], float],
    algorithms: Sequence[int] = tuple(ALGORITHMS.values()),
) -> Product:
    """The product of the algorithm that takes the least time.

    Raises:
        CusparseError: No algorithm takes such a product.
    """
    best: tuple[float, Product] | None = None
    reasons = []
    for algorithm in algorithms:
        try:
            product = make(algorithm)
            product(x)
        except CusparseError as error:
            reasons.append(f"algorithm {algorithm}: {error}")
            continue
        seconds = min(seconds_of(lambda p=product: p(x)) for _ in range(_TRIALS))  # type: ignore[misc]
        if best is None or seconds < best[0]:
            best = seconds, product
    if best is None:
        raise CusparseError("; ".join(reasons))
    return best[1]
