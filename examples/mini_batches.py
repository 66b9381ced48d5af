"""Sampled mini-batches: PyG's `NeighborLoader` without pyg-lib, and its model made fast.

    python examples/mini_batches.py

Where neither pyg-lib nor torch_sparse is installed, PyG cannot sample neighbours;
`gnnkern.compat.install()`, before PyG is imported, lends it a sampler. Every batch is a graph that
was never seen and never comes again, so that sorting its edges has to pay at once. The same batches
train the same GraphSAGE of PyG as it is, and then behind `gnnkern.patch_pyg()`.
"""

import torch
import torch.nn.functional as F
from shared import Run, endless, steps, train
from torch import Tensor, nn

import gnnkern
from gnnkern import compat
from gnnkern.data import power_law
from gnnkern.metrics import accuracy

compat.install()  # before PyG is imported

from torch_geometric.data import Data  # noqa: E402
from torch_geometric.loader import NeighborLoader  # noqa: E402
from torch_geometric.nn import SAGEConv  # noqa: E402

NODES, CLASSES, FEATURES = 20_000, 10, 64


def communities() -> Data:
    """A graph with hubs whose edges stay mostly within ten communities, and noisy features."""
    graph = power_law(
        NODES, 15 * NODES, 2000, community_fraction=0.8, num_communities=CLASSES, seed=0
    )
    y = torch.arange(NODES) * CLASSES // NODES
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(CLASSES, FEATURES, generator=generator)
    noise = torch.randn(NODES, FEATURES, generator=generator)
    return Data(x=0.1 * centre[y] + noise, edge_index=graph.edge_index, y=y)


class SAGE(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = SAGEConv(FEATURES, 64)
        self.conv2 = SAGEConv(64, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.relu(self.conv1(x, edge_index)), edge_index)
        return out


def fit(data: Data, count: int) -> tuple[Run, float]:
    """Train, and return the course of it and the accuracy on the second half of the nodes."""
    torch.manual_seed(0)
    model = SAGE()
    known = torch.arange(0, NODES, 2)
    batches = endless(NeighborLoader(data, [10, 10], known, batch_size=512, shuffle=True))

    def loss() -> Tensor:
        batch = next(batches)
        out = model(batch.x, batch.edge_index)[: batch.batch_size]
        return F.cross_entropy(out, batch.y[: batch.batch_size])

    run = train(model.parameters(), loss, count, lr=0.01)
    with torch.no_grad():
        out = model(data.x, data.edge_index)
    return run, accuracy(out[1::2], data.y[1::2])


def main() -> None:
    count = steps(80, 8, __doc__)
    data = communities()
    print(f"{data.num_nodes} nodes, {data.num_edges} edges, {count} batches of 512 seeds")
    before, _ = fit(data, count)
    gnnkern.patch_pyg()
    after, share = fit(data, count)
    print(f"test accuracy: {share:.3f}")
    print(after.compared("SAGE of PyG, sampling included", before))
    print(gnnkern.pyg_report())


if __name__ == "__main__":
    main()
