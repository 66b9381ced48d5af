"""Reads pickled arrays, CSR matrices and dicts of lists without running any of the pickle.

A pickle is a program: it names functions and calls them. Here every name that such files need is
answered by a stand-in that only records its arguments, and every other name is refused, so neither
numpy nor scipy nor anything else is called with what the file says. Arrays and matrices are then
built from the records, after checking them.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt


def load_arrays(file: BinaryIO) -> Any:
    """Return the pickled `PickledArray`, `PickledCsr` or number, or lists and dicts of them.

    Pickles of Python 2 are read as latin-1.

    Raises:
        ValueError: the pickle is damaged, or asks for a name that is not admitted; the message says
            which.
    """
    try:
        return _Unpickler(file, encoding="latin1").load()
    except Exception as error:
        raise ValueError(f"not a readable pickle of arrays: {error}") from error


class _Dtype:
    """Stand-in for `numpy.dtype`: integers, floats and bool of fixed size."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"refused dtype {code!r}, expected numbers or bool")
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"unknown byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray:
    """Stand-in for `numpy.ndarray`; `values` is the array."""

    # A pickle may make an object without calling __init__, so the default stands in the class.
    values: npt.NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Build the array from (version, shape, dtype, is Fortran order, bytes)."""
        _, shape, dtype, fortran, content = state
        self.values = _array(content, dtype, shape, "F" if fortran else "C")


class PickledCsr:
    """Stand-in for `scipy.sparse.csr_matrix`."""

    state: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Keep the attributes that the file gives."""
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("the state of a csr_matrix must be a dict")
        self.state = state

    def to_dense(self) -> npt.NDArray[np.float32]:  # [rows, columns]
        """Return the matrix as float32, after checking its structure; repeated entries add up."""
        shape = self.state.get("_shape", self.state.get("shape"))
        if not isinstance(shape, tuple) or [type(size) for size in shape] != [int, int]:
            raise ValueError(f"csr_matrix: shape must be (rows, columns), got {shape!r}")
        rows, columns = shape
        indptr, indices, data = (self._part(part) for part in ("indptr", "indices", "data"))
        if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
            raise ValueError("csr_matrix: indptr and indices must be integers")
        counts = indptr[1:].astype(np.int64) - indptr[:-1]  # [rows]
        if (
            rows < 0
            or columns < 0
            or len(indptr) != rows + 1
            or indptr[0] != 0
            or bool((counts < 0).any())
            or not indptr[-1] == len(indices) == len(data)
        ):
            raise ValueError("csr_matrix: indptr, indices and data do not fit together")
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= columns):
            first = int(np.flatnonzero((indices < 0) | (indices >= columns))[0])
            raise ValueError(
                f"csr_matrix: indices[{first}] is {int(indices[first])}, "
                f"expected a column in [0, {columns})"
            )
        dense = np.zeros((rows, columns), dtype=np.float32)
        np.add.at(dense, (np.repeat(np.arange(rows), counts), indices), data.astype(np.float32))
        return dense

    def _part(self, part: str) -> npt.NDArray[Any]:
        value = self.state.get(part)
        if not isinstance(value, PickledArray) or value.values.ndim != 1:
            raise ValueError(f"csr_matrix: {part} must be an array of one dimension")
        return value.values


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    if isinstance(content, str):
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array must have bytes and a dtype")
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes) or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array has shape {sizes} and order {order!r}")
    if math.prod(sizes) * dtype.dtype.itemsize != len(content):
        raise pickle.UnpicklingError(
            f"an array of shape {sizes} and dtype {dtype.dtype} has {len(content)} bytes"
        )
    values = np.frombuffer(content, dtype=dtype.dtype).reshape(sizes, order=order)
    return values.astype(dtype.dtype.newbyteorder("="))


def _reconstruct(kind: Any, *_: Any) -> PickledArray:
    """Stand-in for numpy's empty array to be filled by its state."""
    if kind is not PickledArray:
        raise pickle.UnpicklingError("only plain arrays are admitted")
    return PickledArray()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """Stand-in for numpy's array over a buffer (pickle protocol 5)."""
    array = PickledArray()
    array.values = _array(content, dtype, shape, order)
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    """Stand-in for numpy's scalars."""
    return _array(content, dtype, (), "C").item()


def _reconstructor(kind: Any, *_: Any) -> PickledCsr:
    """Stand-in for how protocols 0 and 1 make an object to be filled by its state."""
    if kind is not PickledCsr:
        raise pickle.UnpicklingError("only csr_matrix is admitted as an object")
    return PickledCsr()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stand-in for how Python 3 writes bytes in protocols up to 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes must be written as latin-1 text")
    return text.encode("latin1")


def _bytes(*content: Any) -> bytes:
    """Stand-in for how Python 3 writes empty bytes in protocols up to 2."""
    if content:
        raise pickle.UnpicklingError("bytes() is admitted without arguments only")
    return b""


def _defaultdict(*_: Any) -> dict[Any, Any]:
    """Stand-in for `collections.defaultdict`."""
    return {}


def _object(*_: Any) -> None:
    """Stand-in for `object`, which `_reconstructor` is given as a base and never calls."""
    raise pickle.UnpicklingError("refused to call object")


class _Call:
    """A function that a pickle may call but not give new attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


# Python 2, older and newer releases of numpy and scipy write different modules for the same thing.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
    ("collections", "defaultdict"): _Call(_defaultdict),
    ("_codecs", "encode"): _Call(_encode),
    **{
        (f"numpy.{core}.multiarray", name): _Call(function)
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Call(_frombuffer) for core in ("core", "_core")},
    **{(f"scipy.sparse{part}", "csr_matrix"): PickledCsr for part in ("", ".csr", "._csr")},
    **{(module, "_reconstructor"): _Call(_reconstructor) for module in ("copyreg", "copy_reg")},
    **{
        (module, name): kind
        for module in ("builtins", "__builtin__")
        for name, kind in (
            ("list", list),
            ("dict", dict),
            ("int", int),
            ("object", _Call(_object)),
            ("bytes", _Call(_bytes)),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows the stand-ins and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = _ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return admitted
