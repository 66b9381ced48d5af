"""What DGL's functions mean, message by message and node by node, in plain torch."""

import torch
from helpers.cases import Call
from helpers.checks import check_gradient

import gnnkern.integrations.dgl as dgl

BINARY = ("add", "sub", "mul", "div")
REDUCES = ("sum", "mean", "max", "min")
COMBINE = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "dot": lambda lhs, rhs: (lhs * rhs).sum(-1, keepdim=True),
}
REDUCE = {
    "sum": lambda rows: rows.sum(0),
    "mean": lambda rows: rows.mean(0),
    "max": lambda rows: rows.amax(0),
    "min": lambda rows: rows.amin(0),
}

# Behind the rows of two operands; they broadcast at their ends.
SHAPES = {
    "rows": ((3,), (3,)),
    "numbers": ((), ()),
    "column": ((2, 3), (2, 1)),
    "shorter": ((2, 3), (3,)),
    "longer": ((), (3,)),
    "crossed": ((1, 3), (4, 1)),
}


def combine(op, lhs, rhs):
    """Rows [E, ...] of two operands, by NumPy's broadcasting of what is behind the rows."""
    shape = torch.broadcast_shapes(lhs.shape[1:], rhs.shape[1:])
    if op == "dot" and not shape:
        return lhs * rhs
    parts = [COMBINE[op](a.expand(shape), b.expand(shape)) for a, b in zip(lhs, rhs, strict=True)]
    return torch.stack(parts) if parts else lhs.new_zeros(0, *shape)


def at(g, end, x):
    """Rows [E, ...] of what lies at the source, the destination or the edge itself."""
    src, dst = g.edge_index
    return {"u": lambda: x[src], "v": lambda: x[dst], "e": lambda: x}[end]()


def reduce_rows(g, messages, reduce, empty=0.0):
    """Messages [E, ...] into each node, one node after the other."""
    _, dst = g.edge_index
    rows = []
    for node in range(g.num_dst):
        own = messages[dst == node]
        # The sum of no rows is 0, and differentiable.
        rows.append(REDUCE[reduce](own) if len(own) else own.sum(0) + empty)
    return torch.stack(rows)


def rows_at(g, end):
    return {"u": g.num_src, "v": g.num_dst, "e": g.num_edges}[end]


def normal_at(g, end, *shape, away_from_zero=False):
    x = torch.randn(rows_at(g, end), *shape, dtype=torch.float64)
    return x + x.sign() if away_from_zero else x


def check(function, definition, *tensors, dtype=torch.float32):
    """Compare value and gradients by the rule of `helpers.tolerance`."""
    call = Call(lambda *inputs, backend: function(*inputs), definition, tensors)
    check_gradient(call.to(dtype), "cpu")


def wrap(g):
    """A `DGLGraph` of one relation with these edges; of a block where its ends differ in number."""
    if g.num_src != g.num_dst:
        return dgl.create_block(tuple(g.edge_index), g.num_src, g.num_dst)
    return dgl.graph(tuple(g.edge_index), num_nodes=g.num_src)
