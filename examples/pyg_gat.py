"""An unmodified PyG script, and the one line that makes it fast.

    python examples/pyg_gat.py

The script between the rules is plain PyG: a graph attention network on handwritten digits, each
joined to those whose pixels are nearest. It trains twice from the same weights, first as it is,
then behind `gnnkern.patch_pyg()`.
"""

import torch
import torch.nn.functional as F
from shared import Nodes, Run, digits, steps, train
from torch import Tensor
from torch_geometric.nn import GATConv

import gnnkern
from gnnkern.metrics import accuracy

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


def script(data: Nodes, count: int) -> tuple[Run, float]:
    """Train, and return the course of it and the accuracy on the test nodes."""
    x, y, edge_index, known, test = data
    torch.manual_seed(0)
    model = GAT(64, 8, 10)

    def loss() -> Tensor:
        return F.cross_entropy(model(x, edge_index)[known], y[known])

    run = train(model.parameters(), loss, count, lr=0.01)
    with torch.no_grad():
        return run, accuracy(model(x, edge_index)[test], y[test])


# --------------------------------------------------------------------------------------- end of it


def main() -> None:
    count = steps(60, 8, __doc__)
    data = digits(k=32)
    print(f"{len(data.y)} digits, {data.edge_index.shape[1]} edges, {count} epochs")

    before, accuracy_before = script(data, count)
    gnnkern.patch_pyg()  # the one line
    after, accuracy_after = script(data, count)

    print(f"test accuracy: {accuracy_before:.3f} without, {accuracy_after:.3f} with it")
    print(after.compared("GAT of PyG", before))
    print(gnnkern.pyg_report())


if __name__ == "__main__":
    main()
