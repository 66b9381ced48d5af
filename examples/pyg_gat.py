"""An unmodified PyG script, and the one line that makes it fast.

    python examples/pyg_gat.py

The script between the rules is plain PyG: a graph attention network on handwritten digits, each
joined to those whose pixels are nearest. It trains twice from the same weights, first as it is,
then behind `gnnkern.patch_pyg()`.
"""

import torch
import torch.nn.functional as F
from shared import Run, steps, train
from torch import Tensor
from torch_geometric.nn import GATConv

import gnnkern
from gnnkern.data import GraphData, digits_graph

# ------------------------------------------------------------------------------------------- PyG


class GAT(torch.nn.Module):
    def __init__(self, in_channels: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = GATConv(in_channels, hidden, heads=8)
        self.conv2 = GATConv(8 * hidden, num_classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = F.elu(self.conv1(x, edge_index))
        out: Tensor = self.conv2(x, edge_index)
        return out


def script(data: GraphData, count: int) -> tuple[Run, float]:
    """Train, and return the course of it and the accuracy on the test nodes."""
    assert data.x is not None and data.y is not None
    assert data.train_mask is not None and data.test_mask is not None
    x, y, edge_index = data.x, data.y, data.edge_index
    train_mask, test_mask = data.train_mask[0], data.test_mask[0]
    torch.manual_seed(0)
    model = GAT(64, 8, 10)

    def loss() -> Tensor:
        return F.cross_entropy(model(x, edge_index)[train_mask], y[train_mask])

    run = train(model.parameters(), loss, count, lr=0.01)
    with torch.no_grad():
        right = model(x, edge_index).argmax(1) == y
    return run, float(right[test_mask].float().mean())


# --------------------------------------------------------------------------------------- end of it


def main() -> None:
    count = steps(60, 8, __doc__)
    data = digits_graph(k=32)
    print(f"{data.num_nodes} digits, {data.edge_index.shape[1]} edges, {count} epochs")

    before, accuracy_before = script(data, count)
    gnnkern.patch_pyg()  # the one line
    after, accuracy_after = script(data, count)

    print(f"test accuracy: {accuracy_before:.3f} without, {accuracy_after:.3f} with it")
    print(after.compared("GAT of PyG", before))
    print(gnnkern.pyg_report())


if __name__ == "__main__":
    main()
