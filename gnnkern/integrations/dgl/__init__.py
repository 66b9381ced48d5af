"""DGL's graphs, message passing and operators on gnnkern's kernels, without DGL.

A model written for DGL moves by its imports:

    import gnnkern.integrations.dgl as dgl
    import gnnkern.integrations.dgl.function as fn
    from gnnkern.integrations.dgl.ops import edge_softmax

`docs/dgl.md` says what is there and where it differs.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from gnnkern.integrations.dgl import function, ops, readout
from gnnkern.integrations.dgl.batches import EdgeBatch, NodeBatch
from gnnkern.integrations.dgl.batching import batch, unbatch
from gnnkern.integrations.dgl.construct import (
    add_self_loop,
    create_block,
    graph,
    heterograph,
    remove_self_loop,
    reverse,
)
from gnnkern.integrations.dgl.convert import from_dgl, to_dgl
from gnnkern.integrations.dgl.dgl_graph import DGLGraph
from gnnkern.integrations.dgl.errors import DGLError
from gnnkern.integrations.dgl.ops import (
    edge_softmax,
    gather_mm,
    gsddmm,
    gspmm,
    segment_mm,
    segment_reduce,
    segment_softmax,
)
from gnnkern.integrations.dgl.structure import ALL

__all__ = [
    "ALL",
    "DGLError",
    "DGLGraph",
    "EdgeBatch",
    "NodeBatch",
    "add_self_loop",
    "batch",
    "create_block",
    "edge_softmax",
    "from_dgl",
    "function",
    "gather_mm",
    "graph",
    "gsddmm",
    "gspmm",
    "heterograph",
    "ops",
    "remove_self_loop",
    "reverse",
    "segment_mm",
    "segment_reduce",
    "segment_softmax",
    "to_dgl",
    "unbatch",
]

globals().update({name: getattr(readout, name) for name in readout.__all__})
__all__ += readout.__all__

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Tensor]: ...
