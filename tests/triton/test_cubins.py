"""Every kernel compiles ahead of time for three architectures, without spilling registers.

By default some of the configurations are compiled, for one of them in turn; `-m slow` compiles all
for each. Needs no GPU, and kernels that are not interpreted.
"""

from functools import partial

import cubins
import pytest
import torch
import triton.language as tl

from gnnkern import _triton
from gnnkern._native import Csr, accumulate_dtype
from gnnkern._triton import import_error

pytestmark = [
    pytest.mark.skipif(import_error() is not None, reason=str(import_error())),
    pytest.mark.skipif(_triton.INTERPRETS, reason="the interpreter's kernels cannot be compiled"),
]

CAPABILITIES = (80, 90, 100)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Bytes of stack to a thread: some tiles keep 8, at 48, 80, 96 or 128 registers, and 16 where a head
# is wider than a tile. The exponentials of doubles take up to 32 on every architecture.
SPILL_BUDGET = 16
DOUBLE_SPILL_BUDGET = 32
# Products of dense tiles, where rows are not aligned.
PRODUCT_SPILL_BUDGET = 8
# Registers that a thread may take before fewer than three programs of 4 warps fit on an SM.
REGISTER_BUDGET = 168
# The moments and selections of doubles, of which two fit.
DOUBLE_REGISTER_BUDGET = 176

N, E = 100, 600
ALL = ("sum", "mean", "min", "max", "std", "var")
SUBSETS = (ALL, ("mean", "min", "max", "std"), ("std",), ("mean", "sum"), ("min", "max"))


def matrix(dtype=torch.int32, edge_id=True, chunks=True):
    """A matrix for launches that are noted and not run: what it holds is never read."""
    plan = torch.zeros(9 if chunks else 0, 4, dtype=dtype)
    order = torch.zeros(E, dtype=dtype)
    return Csr(torch.zeros(N + 1, dtype=dtype), order, order if edge_id else None, plan)


def rows(count, width, dtype=torch.float32):
    return torch.zeros(count, width, dtype=dtype)


ATTENTION = ("gat", "dot", "gatv2")


def attention_operands(kind, dtype, heads, width, edges):
    """What attention takes, as `attention.Operands` names it; `edges`: with all edge tensors."""
    score, row = torch.zeros(N, heads, dtype=dtype), torch.zeros(N, heads, width, dtype=dtype)
    edge_score = torch.zeros(E, heads, dtype=dtype) if edges else None
    if kind == "gat":
        return {"own": score, "key": score, "value": row, "edge_score": edge_score}
    edge_x = torch.zeros(E, heads, width, dtype=dtype) if edges else None
    rows = {"own": row, "key": row, "value": row, "edge_x": edge_x}
    if kind == "gatv2":
        return {**rows, "att": row[0]}
    return {**rows, "edge_score": edge_score}


def attention(kind, dtype, heads=4, width=16, edges=True, tiles=None):
    """The forward of attention, with dropout where there are edge tensors."""
    from gnnkern._attention_loops import Dropout, Operands
    from gnnkern._triton.attention_loops import LOOPS

    operands = Operands(**attention_operands(kind, dtype, heads, width, edges))
    seed = torch.zeros(1, dtype=torch.int64) if edges else None
    dropout = Dropout.of(seed, 0.5)
    return partial(LOOPS.attend, matrix(), kind, operands, 0.2, dropout, True, tiles=tiles)


def gatv2_backward(dtype, heads, width, edges, tiles):
    """Both walks, one after the other."""
    from gnnkern._attention_loops import Dropout
    from gnnkern._triton.gatv2_backward import by_destination, by_source
    from gnnkern._triton.launch import walk_of

    row, att, edge_x = (
        attention_operands("gatv2", dtype, heads, width, edges)[name]
        for name in ("value", "att", "edge_x")
    )
    seed = torch.zeros(1, dtype=torch.int64) if edges else None
    statistics = torch.zeros(N, heads, 2, dtype=accumulate_dtype(dtype))
    walk = walk_of(matrix())
    given = (walk, row, row, att, edge_x, 0.2, Dropout.of(seed, 0.5), row, statistics)
    *_, records = by_destination(*given, True, edges, tiles)
    by_source(walk, records, att, 0.2, row, tiles)


def attention_backward(kind, dtype, heads=4, width=16, edges=True, tiles=None):
    """The gradients that sources get, likewise; of GATv2 all."""
    if kind == "gatv2":
        return partial(gatv2_backward, dtype, heads, width, edges, tiles)
    from gnnkern._attention_loops import Dropout, Operands
    from gnnkern._triton.attention_loops import LOOPS

    operands = attention_operands(kind, dtype, heads, width, edges)
    seed = torch.zeros(1, dtype=torch.int64) if edges else None
    has_rows = kind == "dot"
    statistics = torch.zeros(N, heads, 2 if has_rows else 3, dtype=accumulate_dtype(dtype))
    return partial(
        LOOPS.source_gradients,
        matrix(),
        kind,
        Operands(**operands),
        0.2,
        Dropout.of(seed, 0.5),
        operands["value"],
        statistics,
        edges,
        edges and has_rows,
        tiles=tiles,
    )


def of_tiles(dtypes=(torch.float32,)):
    """Launches in every configuration that the rule may choose."""
    from gnnkern._triton.configs import every_dot_tiles, every_tiles
    from gnnkern._triton.multi_reduce import multi_reduce_forward
    from gnnkern._triton.row_reduce import row_reduce
    from gnnkern._triton.sddmm import sddmm_rows
    from gnnkern._triton.segment_softmax import softmax_rows

    for dtype in dtypes:
        is_double = dtype == torch.float64
        for tiles in every_tiles("sum", is_double):
            x, weight = rows(N, tiles.columns, dtype), torch.zeros(E, dtype=dtype)
            yield partial(row_reduce, matrix(), x, weight, "sum", tiles=tiles)
        for tiles in every_tiles("select", is_double):
            x = rows(N, tiles.columns, dtype)
            yield partial(row_reduce, matrix(), x, None, "max", torch.uint8, tiles=tiles)
        for tiles in every_tiles("softmax", is_double):
            yield partial(softmax_rows, matrix(), rows(E, tiles.columns, dtype), tiles=tiles)
        for tiles in every_tiles("edges", is_double):
            x = torch.zeros(N, tiles.outputs, tiles.columns, dtype=dtype)
            yield partial(sddmm_rows, matrix(), x, x, "dot", tiles=tiles)
        for tiles in every_tiles("multi", is_double):
            x = rows(N, tiles.columns, dtype)
            yield partial(multi_reduce_forward, matrix(), x, ALL, N, True, tiles=tiles)
        for tiles in every_dot_tiles("matmul", is_double):
            yield from products(dtype, tiles)


def of_attention_tiles(dtypes=(torch.float32,)):
    """The same for the kinds of attention."""
    from gnnkern._triton.configs import every_tiles

    for dtype in dtypes:
        is_double = dtype == torch.float64
        for kind in ATTENTION:
            for tiles in every_tiles("attention", is_double):
                yield attention(kind, dtype, tiles.outputs, tiles.columns, tiles=tiles)
            family = "gatv2_backward" if kind == "gatv2" else "attention_backward"
            for tiles in every_tiles(family, is_double):
                yield attention_backward(kind, dtype, tiles.outputs, tiles.columns, tiles=tiles)


def products(dtype, tiles=None, order=None, bias=None, width=64):
    """Launches of products by segment and of their gradients."""
    from gnnkern._triton.segment_matmul import multiply_segments, sum_outer_products

    indptr = torch.zeros(N + 1, dtype=torch.int64)
    x, y = rows(4000, width, dtype), rows(4000, 64, dtype)
    weight = torch.zeros(N, width, 64, dtype=dtype)
    yield partial(multiply_segments, x, indptr, order, weight, bias, tiles=tiles)
    yield partial(multiply_segments, y, indptr, order, weight.mT, None, tiles=tiles)
    yield partial(sum_outer_products, x, y, indptr, order, tiles=tiles)


def of_products():
    """Launches of products in every dtype, of rows in any order, and in TF32."""
    order = torch.zeros(4000, dtype=torch.int64)
    for dtype in DTYPES:
        yield from products(dtype, order=order, bias=rows(N, 64, dtype))
        yield from products(dtype, width=33)
    for call in products(torch.float32):
        yield partial(in_tf32, call)


def in_tf32(call):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        call()
    finally:
        torch.set_float32_matmul_precision(before)


def of_groups():
    """Launches of what groups of rows have in common, and of several reductions at once."""
    from gnnkern._triton.multi_reduce import multi_reduce_forward
    from gnnkern._triton.multi_reduce_backward import multi_reduce_backward
    from gnnkern._triton.row_reduce import log_sum_exp_rows, log_sum_exp_segments
    from gnnkern._triton.scale_by_group import scale_by_group
    from gnnkern._triton.scatter_std import std_rows

    def forward_and_backward(x, grad, reduces):
        saved = multi_reduce_forward(matrix(), x, reduces, N, True)
        multi_reduce_backward(matrix(), matrix(), x, *saved, grad, reduces)

    indptr, index = torch.zeros(N + 1, dtype=torch.int64), torch.zeros(E, dtype=torch.int64)
    for dtype in DTYPES:
        x, grad = rows(E, 33, dtype), rows(N, 33, dtype)
        yield partial(log_sum_exp_segments, indptr, x, True)
        yield partial(log_sum_exp_rows, matrix(edge_id=False), x, True)
        yield partial(std_rows, matrix(edge_id=False), x, True, True)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        statistics = torch.zeros(N, 3, 33, dtype=wide)
        yield partial(scale_by_group, x, indptr, True, statistics[:, :2], grad, True)
        yield partial(scale_by_group, x, index, False, statistics[:, :2], grad, True)
        yield partial(scale_by_group, x, index, False, statistics, grad, False)
        for reduces in SUBSETS if dtype == torch.float32 else SUBSETS[:1]:
            x = rows(N, 64, dtype)
            grad = torch.zeros(N, len(reduces), 64, dtype=dtype)
            yield partial(multi_reduce_forward, matrix(), x, reduces, N, False)
            yield partial(forward_and_backward, x, grad, reduces)


def of_every_kind():
    """Launches of every kind of work, in the configuration that the rule chooses."""
    from gnnkern._triton.attention_loops import LOOPS
    from gnnkern._triton.plan import make_plan
    from gnnkern._triton.row_reduce import message_reduce, reduce_segments, row_reduce
    from gnnkern._triton.sddmm import combine_rows, repeat_rows, sddmm_rows
    from gnnkern._triton.segment_softmax import softmax_rows
    from gnnkern._triton.select_backward import (
        segment_select_backward,
        select_backward_weight,
        select_backward_x,
    )

    indptr = torch.zeros(N + 1, dtype=torch.int64)
    x, edge = torch.zeros(N, 4, 16), torch.zeros(E, 4, 16)
    argument = torch.zeros(N, 4, 16, dtype=torch.int16)
    for index in (torch.int32, torch.int64):
        yield partial(make_plan, indptr.to(index), E)
        yield partial(row_reduce, matrix(index), x, None, "sum")
    for dtype in DTYPES:
        y, z = x.to(dtype), edge.to(dtype)
        weight = z[:, :, 0].contiguous()
        for reduce in ("sum", "mean", "mul", "max", "min", "logsumexp"):
            yield partial(row_reduce, matrix(), y, None, reduce)
        for reduce in ("max", "min"):
            yield partial(row_reduce, matrix(), y, weight, reduce, torch.int16)
        for op in ("dot", "add", "mul", "div"):
            yield partial(sddmm_rows, matrix(), y, y, op)
        yield partial(repeat_rows, indptr, y, E)
        yield partial(softmax_rows, matrix(), weight)
        yield partial(softmax_rows, matrix(), weight, weight)
        yield partial(select_backward_x, matrix(), matrix(), y, weight, argument, N)
        yield partial(select_backward_weight, matrix(), y, weight, argument, y)
        wide = torch.zeros(N, 4, 16, dtype=accumulate_dtype(dtype))
        score, of_row = y[:, :, 0].contiguous(), wide[:, :, 0].contiguous()
        yield partial(LOOPS.statistics_of, wide, of_row, y, score)
        for kind in ATTENTION:
            for edges in (False, True):
                yield attention(kind, dtype, edges=edges)
                yield attention_backward(kind, dtype, edges=edges)
    for reduce, winner in (("sum", None), ("max", torch.int32)):
        yield partial(reduce_segments, indptr, edge, reduce, winner)
        for op in ("add", "sub", "mul", "div"):
            yield partial(message_reduce, matrix(), x, edge, op, reduce)
        yield partial(message_reduce, matrix(), x, edge[:, :1], "mul", reduce)
    yield partial(combine_rows, matrix(), edge, x, "mul", "edge", "src", (1, 16))
    yield partial(combine_rows, matrix(), edge[:, :1], x, "sub", "edge", "dst", (4, 16))
    yield partial(combine_rows, matrix(), x, None, "copy", "src", "src", (4, 16))
    yield partial(segment_select_backward, indptr, x, argument, E)
    # Heads that no tile is as wide as, and heads wider than a tile.
    for heads, width in ((1, 100), (2, 1030)):
        for kind in ATTENTION:
            yield attention(kind, torch.float32, heads, width)
            yield attention_backward(kind, torch.float32, heads, width)
    # No long rows, the caller's order, and widths that no vector divides.
    for width in (1, 3, 100):
        y = rows(N, width)
        yield partial(row_reduce, matrix(chunks=False), y, None, "sum")
        yield partial(sddmm_rows, matrix(edge_id=False), y, y, "dot")


def check(launches, capabilities):
    """Compile each launch for one of the architectures, in turn; `-s` shows what each takes."""
    too_much = []
    for i, launch in enumerate(launches):
        capability = capabilities[i % len(capabilities)]
        usage = cubins.compile_for(launch, capability)
        line = f"sm_{capability} {usage} {launch}"
        print(line)
        assert usage.cubin > 0
        registers = REGISTER_BUDGET
        constants = dict(launch.constants)
        spills = PRODUCT_SPILL_BUDGET if "INNER" in constants else SPILL_BUDGET
        if constants.get("ACC") == tl.float64:
            spills, registers = DOUBLE_SPILL_BUDGET, DOUBLE_REGISTER_BUDGET
        if usage.spills > spills or usage.registers > registers:
            too_much.append(line)
    assert not too_much, "\n".join(too_much)


def test_every_kind_of_work_on_one_architecture():
    check(cubins.catch(*of_every_kind()), CAPABILITIES)


def test_groups_on_one_architecture():
    check(cubins.catch(*of_groups()), CAPABILITIES)


def test_products_on_one_architecture():
    check(cubins.catch(*of_products()), CAPABILITIES)


def test_every_other_configuration_on_one_architecture():
    check(cubins.catch(*of_tiles())[::2], CAPABILITIES)


def test_some_configurations_of_attention_on_one_architecture():
    check(cubins.catch(*of_attention_tiles())[::6], CAPABILITIES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_configuration(capability):
    both = (torch.float32, torch.float64)
    tiles = [*of_tiles(both), *of_attention_tiles(both)]
    check(cubins.catch(*tiles, *of_groups(), *of_products(), *of_every_kind()), [capability])
