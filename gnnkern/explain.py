"""`explain`: which backend a call would run on and why, and what it must cost."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnkern import backends, ops
from gnnkern.graph import Graph
from gnnkern.hardware import Machine, cached_probe
from gnnkern.hardware.cost import Cost, Edges, Gather, Times, cost, predict, times
from gnnkern.hardware.op_traffic import INPUTS
from gnnkern.ops._checks import check_graph, query_of
from gnnkern.ops.scatter_reduce import UNORDERED_FIRST, implementations_of

__all__ = ["Explanation", "explain"]

# Numbers that every edge may have, by the argument that holds them.
_EDGE_SCALARS = {
    "spmm": "weight",
    "gat_attention": "edge_score",
    "dot_attention": "edge_bias",
    "segment_matmul": "bias",
    "gather_matmul": "bias",
}
# Ops whose result, or input, has a row or a number per edge in the caller's order.
_BY_EDGE = ("edge_softmax", "sddmm")
# The operand that a copy of the other one does not read.
_UNREAD = {"copy_lhs": "x_src", "copy_rhs": "x_dst"}
# What the first dimension of an argument of an op on a graph is.
_ROWS = {
    "num_src": ("x", "x_src", "key", "value", "score_src"),
    "num_dst": ("x_dst", "query", "score_dst"),
    "num_edges": ("score", "weight", "edge_score", "edge_bias", "edge_x"),
}
_WIDE_IN_AUTOCAST = ("edge_softmax", "segment_softmax", "segment_logsumexp", "scatter_logsumexp")
_CAST_IN_AUTOCAST = (
    "spmm",
    "sddmm",
    "gat_attention",
    "gatv2_attention",
    "dot_attention",
    "multi_reduce",
    "segment_matmul",
    "gather_matmul",
)

# Below this multiple of the time of an empty call, the call itself is worth a word.
_SMALL = 3.0


@dataclass(frozen=True)
class Explanation:
    """What is known of a call before it is made; `str()` says it in words.

    Attributes:
        op: The op.
        backend: Where it would run; None: nowhere, and the call would raise.
        why: Why there.
        against: The reasons against every other backend.
        call: The options of `gnnkern.hardware.cost.cost`.
        edges: The graph, or the segments.
        plan: Numbers of the row-chunk plan; empty where it is made during the call.
        cost: Bytes and operations, with the gradients that the inputs ask for.
        machine: What the probe measured; None: nothing was measured yet.
        times: What the cost takes on the machine.
        predicted_s: Seconds by backend.
        advice: What would make the call faster.
    """

    op: str
    backend: str | None
    why: str
    against: dict[str, list[str]]
    call: dict[str, Any]
    edges: Edges
    plan: dict[str, int]
    cost: Cost
    machine: Machine | None
    times: Times | None
    predicted_s: dict[str, float]
    advice: tuple[str, ...]

    def __str__(self) -> str:
        """Say everything in lines."""
        where = "nowhere" if self.backend is None else f"on {self.backend}"
        lines = [f"{self.op} runs {where}: {self.why}"]
        lines += [f"  not on {name}: {'; '.join(why)}" for name, why in self.against.items()]
        lines += [f"call: {self._call_line()}", f"edges: {self._edges_line()}"]
        if self.plan:
            lines.append(f"plan: {self._plan_line()}")
        lines += [f"bytes: {self._bytes_line()}"]
        lines += [f"table: {self._table_line(table)}" for table in dict.fromkeys(self.cost.gathers)]
        lines.append(f"time: {self._time_line()}")
        lines += [f"would help: {advice}" for advice in self.advice]
        return "\n".join(lines)

    def _call_line(self) -> str:
        backward = sorted(self.call["backward"])
        direction = f"forward and the gradients of {', '.join(backward)}" if backward else "forward"
        heads = f" in {self.call['heads']} heads" if self.call["heads"] > 1 else ""
        dtype = str(self.call["dtype"]).removeprefix("torch.")
        return f"{direction}; {dtype}, width {self.call['width']}{heads}"

    def _edges_line(self) -> str:
        e = self.edges
        if e.graph is None:
            return f"{e.num_edges:,} rows in {e.num_dst:,} segments"
        order = "" if e.in_order else ", the caller's order is not that of the destinations"
        return (
            f"{e.num_edges:,} from {e.num_src:,} to {e.num_dst:,} nodes, at most "
            f"{e.max_degree:,} into one{order}"
        )

    def _plan_line(self) -> str:
        plan = self.plan
        line = f"{plan['items']:,} items of up to {plan['chunk_edges']:,} edges"
        if plan["long_rows"]:
            line += (
                f"; {plan['long_rows']:,} longer rows are cut into {plan['chunks']:,} chunks, "
                "which are folded in order"
            )
        return line

    def _bytes_line(self) -> str:
        c = self.cost
        line = f"{_size(c.compulsory_bytes)} once, {_size(c.index_bytes)} of it indices"
        if c.gathers:
            gathers = "1 gather" if len(c.gathers) == 1 else f"{len(c.gathers)} gathers"
            line += f"; {_size(c.gathered_bytes)} of rows in {gathers}"
        return f"{line}; {c.flops / 1e6:,.1f} Mflop"

    def _table_line(self, gather: Gather) -> str:
        reads = gather.reads
        line = (
            f"{_size(gather.table_bytes)}: {reads.distinct:,} of {reads.rows:,} rows are read, "
            f"{_size(gather.row_bytes)} each"
        )
        if self.machine is None or not reads.count:
            return line
        cache = self.machine.cache_holding(gather.table_bytes)
        fits = "fits into no cache" if cache is None else f"fits into {cache}"
        rate = self.machine.gather_bandwidth(gather.row_bytes, gather.table_bytes) / 1e9
        return f"{line}; {fits}; such rows come at {rate:.1f} GB/s when all are read alike"

    def _time_line(self) -> str:
        if self.times is None:
            return "unknown: `gnnkern probe` or gnnkern.hardware.probe() measures the machine once"
        t = self.times
        parts = f"every byte once {_time(t.compulsory_s)}"
        if self.cost.gathers:
            parts += f", rows from caches {_time(t.cache_s)}, without any reuse {_time(t.gather_s)}"
        if t.compute_s == t.floor_s:
            parts += f", operations {_time(t.compute_s)}"
        line = f"at least {_time(t.floor_s)} ({parts})"
        predicted = ", ".join(f"{name} {_time(s)}" for name, s in self.predicted_s.items())
        return f"{line}; predicted {predicted}"


def explain(
    name: str, /, *arguments: Any, machine: Machine | None = None, **options: Any
) -> Explanation:
    """Say what a call of an op would do, and cost, without making it.

    `print(gnnkern.explain("spmm", g, x))` says which backend would run and why, the reasons against
    the others, the plan, the bytes that must move, how far the rows that are read fit into caches,
    the least time for that, the time predicted, and what would help. The gradients of inputs that
    require them are counted in. No kernel runs and nothing is measured.

    Args:
        name: The op's name.
        arguments: What the op takes.
        machine: What a probe measured; by default the one kept on disk, if there is one.
        options: The keyword arguments that the op takes.

    Raises:
        TypeError: the arguments are not those that the op takes.
        ValueError: there is no such op, or a shape or backend is wrong.
    """
    known = ops.implementations()
    if name not in known:
        raise ValueError(f"explain: op must be one of {', '.join(known)}, got {name!r}")
    given = _bind(name, arguments, options)
    inputs = _inputs(name, given)
    main = next(iter(inputs.values()))
    edges = _edges(name, given, main)
    call = _call(name, given, inputs, main)
    query = query_of(main)._replace(dtype=call["dtype"])
    table = known[name]
    if name == "scatter_reduce":
        table = implementations_of(main, given["reduce"], given["deterministic"])
    choice = backends.survey(name, table, query, given.get("backend"))
    atomics = table is UNORDERED_FIRST and choice.backend == "cuda"
    if atomics:
        choice = choice._replace(why="deterministic=False allows its atomics, which sort nothing")
    machine = _machine(main.device) if machine is None else machine
    moved = cost(name, edges, **call)
    return Explanation(
        op=name,
        backend=choice.backend,
        why=choice.why,
        against=choice.against,
        call=call,
        edges=edges,
        plan=_plan(edges),
        cost=moved,
        machine=machine,
        times=None if machine is None else times(moved, machine, dtype=call["dtype"]),
        predicted_s={} if machine is None else predict(name, edges, machine=machine, **call),
        advice=tuple(_advice(name, edges, call, inputs, machine, sorts=not atomics)),
    )


# -- the call --------------------------------------------------------------------------------------


def _bind(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    try:
        bound = inspect.signature(getattr(ops, name)).bind(*arguments, **options)
    except TypeError as error:
        raise TypeError(f"explain: {name}: {error}") from None
    bound.apply_defaults()
    if "g" in bound.arguments:
        check_graph(name, bound.arguments["g"])
    return bound.arguments


def _inputs(name: str, given: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of features, scores and weights that are given."""
    inputs = {}
    for argument in INPUTS[name]:
        if name == "sddmm" and _UNREAD.get(given["op"]) == argument:
            continue
        tensor = given.get(argument)
        # Without a default it must be there.
        if tensor is None and (argument in _optional(name) or _other_stands(name, argument, given)):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: {argument} must be a tensor, got {type(tensor).__name__}")
        inputs[argument] = tensor
        g = given.get("g")
        if isinstance(g, Graph):
            for count, names in _ROWS.items():
                rows = getattr(g, count)
                if argument in _elsewhere(name, given):
                    continue
                if argument in names and tensor.shape[:1] != (rows,):
                    raise ValueError(
                        f"{name}: {argument} must have shape [{count}={rows}, ...], got "
                        f"{list(tensor.shape)}"
                    )
    return inputs


def _other_stands(name: str, argument: str, given: Mapping[str, Any]) -> bool:
    """Whether an operand may be None since the other one is all that the op reads."""
    return name == "spmm" and argument == "x" and given.get("weight") is not None


def _elsewhere(name: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The operands whose rows are not those that their names say: the op itself checks them."""
    if name != "sddmm" or tuple(given["targets"]) == ("dst", "src"):
        return ()
    return ("x_dst", "x_src")


def _optional(name: str) -> set[str]:
    parameters = inspect.signature(getattr(ops, name)).parameters
    return {
        argument
        for argument in INPUTS[name]
        if argument not in parameters or parameters[argument].default is None
    }


def _edges(name: str, given: Mapping[str, Any], main: Tensor) -> Edges:
    if "g" in given:
        return Edges.of(given["g"])
    rows = main.shape[0] if main.dim() else 0
    for argument in ("indptr", "index", "type_index"):
        if argument in given and not isinstance(given[argument], Tensor):
            kind = type(given[argument]).__name__
            raise TypeError(f"{name}: {argument} must be a tensor, got {kind}")
    if "indptr" in given:
        indptr = given["indptr"]
        degree = indptr[1:] - indptr[:-1]
        total = int(indptr[-1]) if indptr.numel() else 0
        longest = int(degree.max()) if degree.numel() else 0
        count = degree.shape[0]
        size = indptr.element_size()
        return Edges.segments(count, total, max_degree=longest, index_bytes=size)
    if "type_index" in given:
        size = given["type_index"].element_size()
        return Edges.segments(given["weight"].shape[0], rows, index_bytes=size)
    index, count = given["index"], given.get("num_segments")
    if count is None:
        count = int(index.max()) + 1 if index.numel() else 0
    return Edges.segments(count, rows, index_bytes=index.element_size())


def _call(
    name: str, given: Mapping[str, Any], inputs: Mapping[str, Tensor], main: Tensor
) -> dict[str, Any]:
    """The options of `cost`."""
    scalars = inputs.get(_EDGE_SCALARS.get(name, ""))
    heads = main.shape[1] if main.dim() == 3 else 1
    width = main.shape[1:].numel() if main.dim() else 0
    edge_rows = given.get("edge_x") is not None
    if name == "spmm":
        # A weight is a number per edge or head, or a row; alone it is what is summed.
        if scalars is not None and "x" in inputs and scalars.dim() == main.dim():
            width = _broadcast(name, main, scalars).numel()
        heads = 1 if scalars is None else scalars.shape[1:].numel()
        edge_rows = scalars is not None and ("x" not in inputs or 1 < heads == width)
        heads = 1 if edge_rows else heads
        scalars = scalars if "x" in inputs else None
    elif name == "sddmm":
        shape = _broadcast(name, *inputs.values())
        width, heads = shape.numel(), shape[:-1].numel()
        edge_rows = "edge" in given["targets"]
    wanted = [k for k, tensor in inputs.items() if torch.is_grad_enabled() and tensor.requires_grad]
    matrices = name.endswith("_matmul")
    return {
        "width": width,
        "dtype": _dtype(name, main),
        "heads": heads,
        "reduce": given.get("reduces", given.get("reduce", "sum")),
        "weighted": scalars is not None,
        "backward": tuple(wanted),
        "out_width": given["weight"].shape[-1] if matrices else 0,
        "edge_rows": edge_rows,
        "edge_op": given["op"] if name == "sddmm" else "dot",
    }


def _broadcast(name: str, *tensors: Tensor) -> torch.Size:
    """The shape behind the rows, of all together."""
    shapes = [list(x.shape[1:]) for x in tensors]
    try:
        return torch.Size(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        raise ValueError(f"{name}: rows of shapes {shapes} do not broadcast") from None


def _dtype(name: str, main: Tensor) -> torch.dtype:
    """The dtype that the op computes in, autocast included."""
    kind = main.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind) or main.dtype == torch.float64:
        return main.dtype
    if name in _WIDE_IN_AUTOCAST:
        return torch.float32
    return torch.get_autocast_dtype(kind) if name in _CAST_IN_AUTOCAST else main.dtype


def _plan(edges: Edges) -> dict[str, int]:
    """Numbers of the header in csrc/cpu/plan.h; nothing where the graph has no plan."""
    if edges.graph is None or not edges.graph.csr.plan.numel():
        return {}
    header = edges.graph.csr.plan[:8].tolist()
    names = ("chunk_edges", "items", "long_rows", "chunks")
    return dict(zip(names, header[3:7], strict=True))


def _machine(device: torch.device) -> Machine | None:
    return cached_probe(device) if device.type in ("cpu", "cuda") else None


# -- advice ----------------------------------------------------------------------------------------


def _advice(
    name: str,
    edges: Edges,
    call: dict[str, Any],
    inputs: Mapping[str, Tensor],
    machine: Machine | None,
    sorts: bool,
) -> list[str]:
    advice = []
    g = edges.graph
    moved = cost(name, edges, **call)
    if g is not None and call["backward"] and g._reverse is None:
        advice.append("g.prepare() now, or the first gradient sorts the reversed graph")
    copied = [k for k, tensor in inputs.items() if not _rows_whole(tensor)]
    if copied:
        advice.append(f"contiguous {', '.join(copied)}: every call copies what is not")
    by_edge = call["weighted"] or call["edge_rows"] or name in _BY_EDGE
    if g is not None and by_edge and edges.order_bytes:
        advice.append(
            f"edges listed by destination: the map of their order is {_size(edges.order_bytes)} "
            "per pass, and edge tensors would be read in a row"
        )
    if name.startswith("scatter_") and sorts:
        advice.append(
            "a Graph and spmm, or segment_reduce of sorted rows, where the index is used again: "
            "every call sorts it"
        )
    if machine is not None:
        predicted = predict(name, edges, machine=machine, **call)["cpu"]
        if predicted < _SMALL * machine.op_call_s:
            return [*advice, "several small graphs in one: the call takes longer than its work"]
    if call["dtype"].itemsize >= 4 and moved.moved_bytes:
        advice.append(_narrower(name, edges, call, moved, machine))
    if machine is not None and any(_is_far(gather, machine) for gather in moved.gathers):
        advice.append(
            "numbering the nodes so that neighbours lie close: caches then still have the rows "
            "that come again"
        )
    return advice


def _is_far(gather: Gather, machine: Machine) -> bool:
    """Whether the rows come at less than half of the rate of a table in the nearest cache."""
    near = machine.gather_bandwidth(gather.row_bytes, 0.0)
    return 2 * machine.gather_bandwidth(gather.row_bytes, gather.table_bytes) < near


def _narrower(
    name: str, edges: Edges, call: dict[str, Any], moved: Cost, machine: Machine | None
) -> str:
    narrow = {**call, "dtype": torch.bfloat16}
    fewer = cost(name, edges, **narrow)
    line = f"bfloat16: {_size(fewer.moved_bytes)} move instead of {_size(moved.moved_bytes)}"
    if machine is None:
        return line
    now, then = (
        times(of, machine, dtype=options["dtype"]).floor_s
        for of, options in ((moved, call), (fewer, narrow))
    )
    return f"{line}, at least {_time(then)} instead of {_time(now)}"


def _rows_whole(x: Tensor) -> bool:
    """Whether the kernels read x where it is."""
    if x.dim() == 2 and x.stride(1) == 1 and x.stride(0) >= x.shape[1]:
        return True
    return x.is_contiguous()


def _size(num_bytes: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
