"""pyg-lib's ops on gnnkern's kernels: products by group, sampled arithmetic, softmax, sorting.

Shapes and arguments are those of pyg-lib. Every op is differentiable where its values are floating,
on every device that torch has, and products and sampled arithmetic any number of times.

Source: pyg_lib.ops. What is not here (nearest neighbours, splines, clusters) PyG asks for by name
and goes without.
"""

import torch
from torch import Tensor

from gnnkern import _sorting
from gnnkern.backends import FLOAT_DTYPES
from gnnkern.compat._script import called_in_python
from gnnkern.graph import Graph
from gnnkern.ops.sddmm import sddmm
from gnnkern.ops.segment_matmul import segment_matmul as _products_of_segments
from gnnkern.ops.segment_softmax import segment_softmax

__all__ = [
    "grouped_matmul",
    "index_sort",
    "sampled_add",
    "sampled_div",
    "sampled_mul",
    "sampled_sub",
    "segment_matmul",
    "softmax_csr",
]


def segment_matmul(
    inputs: Tensor,  # [N, K]
    ptr: Tensor,  # [B + 1]
    other: Tensor,  # [B, K, M]
    bias: Tensor | None = None,  # [B, M]
) -> Tensor:  # [N, M]
    """Rows `ptr[i]` to `ptr[i + 1]` of inputs times matrix i, plus row i of bias.

    `ptr` may lie on the CPU while the others do not.
    """
    return _segment_matmul(inputs, ptr, other, bias)


@called_in_python
def _segment_matmul(inputs: Tensor, ptr: Tensor, other: Tensor, bias: Tensor | None) -> Tensor:
    if inputs.dtype in FLOAT_DTYPES:
        return _products_of_segments(inputs, ptr.to(inputs.device), other, bias)
    sizes = ptr.diff().tolist()
    parts = [x @ matrix for x, matrix in zip(inputs.split(sizes), other, strict=True)]
    out = torch.cat(parts) if parts else inputs.new_empty(0, other.shape[-1])
    return out if bias is None else out + bias.repeat_interleave(ptr.diff().to(bias.device), 0)


def grouped_matmul(
    inputs: list[Tensor],
    others: list[Tensor],
    biases: list[Tensor] | None = None,
) -> list[Tensor]:
    """`inputs[i] @ others[i] + biases[i]` for every i, of any widths.

    One kernel where all matrices have one shape, otherwise one product each.

    Args:
        inputs: Tensors [N_i, K_i], or with more dimensions in front.
        others: Matrices [K_i, M_i], or as many dimensions as the input.
        biases: None, or vectors [M_i].
    """
    return _grouped_matmul(inputs, others, biases)


@called_in_python
def _grouped_matmul(
    inputs: list[Tensor], others: list[Tensor], biases: list[Tensor] | None
) -> list[Tensor]:
    if len(inputs) > 1 and _have_one_shape(inputs, others):
        sizes = [x.shape[0] for x in inputs]
        ptr = torch.tensor([0, *sizes]).cumsum(0)
        bias = None if biases is None else torch.stack(list(biases))
        out = _segment_matmul(torch.cat(list(inputs)), ptr, torch.stack(list(others)), bias)
        return list(out.split(sizes))
    outs = [x @ other for x, other in zip(inputs, others, strict=True)]
    if biases is None:
        return outs
    return [out + bias for out, bias in zip(outs, biases, strict=True)]


def _have_one_shape(inputs: list[Tensor], others: list[Tensor]) -> bool:
    first = others[0]
    return all(
        x.dim() == 2
        and x.dtype == other.dtype == first.dtype
        and x.dtype in FLOAT_DTYPES
        and other.shape == first.shape
        for x, other in zip(inputs, others, strict=True)
    )


def sampled_add(
    left: Tensor,
    right: Tensor,
    left_index: Tensor | None = None,
    right_index: Tensor | None = None,
) -> Tensor:
    """`left[left_index] + right[right_index]`, row by row, without the two copies.

    Args:
        left: [N, F] rows; with no index one for each row of the result.
        right: [M, F] rows, likewise.
        left_index: [E] integers, or None; one of the two is needed.
        right_index: [E] integers, or None.

    Returns:
        [E, F], the dtype of both.

    Raises:
        ValueError: there is no index, or one is out of range.
    """
    return _sampled(left, right, left_index, right_index, "add")


def sampled_sub(
    left: Tensor,
    right: Tensor,
    left_index: Tensor | None = None,
    right_index: Tensor | None = None,
) -> Tensor:
    """`left[left_index] - right[right_index]`: see `sampled_add`."""
    return _sampled(left, right, left_index, right_index, "sub")


def sampled_mul(
    left: Tensor,
    right: Tensor,
    left_index: Tensor | None = None,
    right_index: Tensor | None = None,
) -> Tensor:
    """`left[left_index] * right[right_index]`: see `sampled_add`."""
    return _sampled(left, right, left_index, right_index, "mul")


def sampled_div(
    left: Tensor,
    right: Tensor,
    left_index: Tensor | None = None,
    right_index: Tensor | None = None,
) -> Tensor:
    """`left[left_index] / right[right_index]`: see `sampled_add`."""
    return _sampled(left, right, left_index, right_index, "div")


@called_in_python
def _sampled(
    left: Tensor,
    right: Tensor,
    left_index: Tensor | None,
    right_index: Tensor | None,
    op: str,
) -> Tensor:
    index = left_index if left_index is not None else right_index
    if index is None:
        raise ValueError(f"sampled_{op}: left_index or right_index must be given")
    if left.dtype not in FLOAT_DTYPES or left.dim() != 2 or right.dim() != 2:
        lhs = left if left_index is None else left.index_select(0, left_index)
        rhs = right if right_index is None else right.index_select(0, right_index)
        out: Tensor = getattr(torch, op)(lhs, rhs)
        return out
    # An operand without an index lies on the edges, whose ends are then counted and not used.
    edges = torch.arange(index.shape[0], dtype=index.dtype, device=index.device)
    src = edges if right_index is None else right_index
    dst = edges if left_index is None else left_index
    graph = Graph.from_edge_index(torch.stack((src, dst)), (right.shape[0], left.shape[0]))
    targets = ("edge" if left_index is None else "dst", "edge" if right_index is None else "src")
    return sddmm(graph, left, right, op=op, targets=targets)


def softmax_csr(src: Tensor, ptr: Tensor, dim: int = 0) -> Tensor:
    """Softmax along `dim` of src over positions `ptr[i]` to `ptr[i + 1]`.

    Args:
        src: [..., E, ...] with E along dim.
        ptr: [N + 1] from 0 to E.
        dim: The dimension to normalise.
    """
    return _softmax_csr(src, ptr, dim)


@called_in_python
def _softmax_csr(src: Tensor, ptr: Tensor, dim: int) -> Tensor:
    out = segment_softmax(src.movedim(dim, 0), ptr)
    return out.movedim(0, dim).contiguous()


def index_sort(inputs: Tensor, max_value: int | None = None) -> tuple[Tensor, Tensor]:
    """Sort integers: the values in ascending order and where each of them was, both [E].

    Equal values keep their order. Values below a few times E are counted, in two passes over them.

    Args:
        inputs: [E] integers, none negative.
        max_value: A bound of the values, where it is known.
    """
    return _index_sort(inputs, max_value)


# A counting sort has a counter for every value that there could be; with this many more values than
# elements, reading them costs as much as the elements.
_COUNTERS_PER_ELEMENT = 4


@called_in_python
def _index_sort(inputs: Tensor, max_value: int | None) -> tuple[Tensor, Tensor]:
    if inputs.is_cpu and inputs.numel() and inputs.dtype in (torch.int32, torch.int64):
        largest = int(inputs.max()) if max_value is None else max_value
        if 0 <= largest < _COUNTERS_PER_ELEMENT * inputs.numel():
            keys = inputs.contiguous()
            bad, indptr, _, order = _sorting.sort_edges(keys, None, largest + 1, 0, torch.int64)
            if bad < 0 and order is None:
                return inputs.clone(), torch.arange(inputs.numel())
            if bad < 0 and order is not None:
                return inputs.index_select(0, order), order
    values, order = torch.sort(inputs, stable=True)
    return values, order
