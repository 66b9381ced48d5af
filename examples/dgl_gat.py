"""A model written for DGL, moved by its import. DGL is not needed.

    python examples/dgl_gat.py

The layer below is written as DGL's own tutorial of graph attention is: scores by `apply_edges`,
`edge_softmax`, and a weighted sum by `update_all`. Nothing of it knows gnnkern but the imports. The
weighted sum is one walk over the edges; to show what that saves, the model also trains with the
messages made by a function of the user, which DGL allows as well.
"""

import torch
import torch.nn.functional as F
from shared import digits, steps, train
from torch import Tensor, nn

import gnnkern.integrations.dgl as dgl  # was: import dgl
import gnnkern.integrations.dgl.function as fn  # was: import dgl.function as fn
from gnnkern.integrations.dgl.ops import edge_softmax  # was: from dgl.ops import edge_softmax
from gnnkern.metrics import accuracy


def weighted(edges: dgl.EdgeBatch) -> dict[str, Tensor]:
    """The message of `fn.u_mul_e`, made: a tensor of edges x width."""
    return {"m": edges.src["z"] * edges.data["a"]}


class GATLayer(nn.Module):
    """Graph attention of several heads."""

    def __init__(self, in_dim: int, out_dim: int, heads: int, built_in: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(in_dim, heads * out_dim, bias=False)
        self.attn_src = nn.Parameter(nn.init.xavier_normal_(torch.empty(heads, out_dim)))
        self.attn_dst = nn.Parameter(nn.init.xavier_normal_(torch.empty(heads, out_dim)))
        self.message = fn.u_mul_e("z", "a", "m") if built_in else weighted

    def forward(self, g: dgl.DGLGraph, h: Tensor) -> Tensor:
        with g.local_scope():
            z = self.fc(h).view(h.shape[0], *self.attn_src.shape)  # [N, H, D]
            g.ndata["z"] = z
            g.ndata["el"] = (z * self.attn_src).sum(-1, keepdim=True)  # [N, H, 1]
            g.ndata["er"] = (z * self.attn_dst).sum(-1, keepdim=True)  # [N, H, 1]
            g.apply_edges(fn.u_add_v("el", "er", "e"))
            g.edata["a"] = edge_softmax(g, F.leaky_relu(g.edata["e"], 0.2))  # [E, H, 1]
            g.update_all(self.message, fn.sum("m", "h"))
            out: Tensor = g.ndata["h"]  # [N, H, D]
            return out.flatten(1)


class GAT(nn.Module):
    """Two layers."""

    def __init__(self, built_in: bool) -> None:
        super().__init__()
        self.layer1 = GATLayer(64, 8, heads=8, built_in=built_in)
        self.layer2 = GATLayer(64, 10, heads=1, built_in=built_in)

    def forward(self, g: dgl.DGLGraph, h: Tensor) -> Tensor:
        out: Tensor = self.layer2(g, F.elu(self.layer1(g, h)))
        return out


def main() -> None:
    count = steps(60, 8, __doc__)
    x, y, edge_index, known, test = digits(k=32)
    g = dgl.add_self_loop(dgl.graph(tuple(edge_index), num_nodes=len(y)))
    print(f"{g.num_nodes()} digits, {g.num_edges()} edges, {count} epochs")

    runs = []
    for built_in in (False, True):
        torch.manual_seed(0)
        model = GAT(built_in)
        loss = lambda model=model: F.cross_entropy(model(g, x)[known], y[known])  # noqa: E731
        runs.append(train(model.parameters(), loss, count, lr=0.01))
    print(f"test accuracy: {accuracy(model(g, x)[test], y[test]):.3f}")
    print(runs[1].compared("GAT of DGL, messages made or not", runs[0]))


if __name__ == "__main__":
    main()
