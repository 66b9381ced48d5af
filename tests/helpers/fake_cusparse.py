"""A stand-in for cuSPARSE on the CPU: as many arguments, the same handles, float32 alone."""

import ctypes

import numpy as np

from gnnkern.bench import cusparse

_SUCCESS, _NOT_SUPPORTED = 0, 10


class FakeCusparse:
    """Takes what `cusparse.Product` passes and multiplies; `refuses` lists algorithms it lacks."""

    def __init__(self, refuses=()):
        self.refuses = refuses
        self.objects, self.calls = {}, []

    def __getattr__(self, name):
        count = len(cusparse._SIGNATURES[name])
        own = getattr(type(self), f"_{name}", None)

        def call(*arguments):
            assert len(arguments) == count, f"{name} takes {count} arguments, got {len(arguments)}"
            self.calls.append(name)
            return _SUCCESS if own is None else own(self, *map(_plain, arguments))

        return call

    def _make(self, target, **fields):
        number = len(self.objects) + 1
        self.objects[number] = fields
        target.value = number
        return _SUCCESS

    def _cusparseCreate(self, target):  # noqa: N802  its name in the library
        return self._make(target)

    def _cusparseCreateCsr(self, target, rows, cols, edges, indptr, indices, values, *kinds):  # noqa: N802
        of_rows, of_cols, base, dtype = kinds
        assert (of_rows, of_cols, base, dtype) == (2, 2, 0, 0)
        return self._make(
            target,
            shape=(rows, cols),
            indptr=_array(indptr, ctypes.c_int32, rows + 1),
            indices=_array(indices, ctypes.c_int32, edges),
            values=_array(values, ctypes.c_float, edges),
        )

    def _cusparseCreateDnMat(self, target, rows, cols, stride, values, dtype, order):  # noqa: N802
        assert (stride, dtype, order) == (cols, 0, 2)
        return self._make(target, shape=(rows, cols), at=values)

    def _cusparseDnMatSetValues(self, dense, values):  # noqa: N802
        self.objects[dense.value]["at"] = values
        return _SUCCESS

    def _cusparseSpMM_bufferSize(self, *arguments):  # noqa: N802
        *product, size = arguments
        size.value = 64
        return _NOT_SUPPORTED if product[-1] in self.refuses else _SUCCESS

    def _cusparseSpMM(self, *arguments):  # noqa: N802
        _, of_a, of_b, alpha, sparse, x, beta, out, compute, _, workspace = arguments
        assert (of_a, of_b, alpha.value, beta.value, compute) == (0, 0, 1.0, 0.0, 0)
        assert workspace
        matrix, x, out = (self.objects[handle.value] for handle in (sparse, x, out))
        x, out = (
            _array(d["at"], ctypes.c_float, np.prod(d["shape"])).reshape(d["shape"])
            for d in (x, out)
        )
        for row in range(matrix["shape"][0]):
            part = slice(matrix["indptr"][row], matrix["indptr"][row + 1])
            out[row] = matrix["values"][part] @ x[matrix["indices"][part]]
        return _SUCCESS


def _plain(argument):
    return getattr(argument, "_obj", argument)


def _array(address, kind, count):
    return np.ctypeslib.as_array((kind * int(count)).from_address(address))


def _matrix(address, rows, columns):
    return _array(address, ctypes.c_float, rows * columns).reshape(rows, columns)
