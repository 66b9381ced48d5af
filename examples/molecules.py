"""Graph classification on batches of many small graphs, such as molecules.

    python examples/molecules.py

The molecules are made up: chains of atoms that branch, half of them closed to a ring somewhere. A
GIN with a sum for its readout learns to tell which. The batches are PyG's and new in every epoch;
the layers are gnnkern's, which take PyG's weights by their names, and train beside PyG's own.
Batches of a thousand atoms leave little to gain, and may lose: the last line says which.
"""

import torch
import torch.nn.functional as F
from shared import Run, endless, steps, train
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

import gnnkern
from gnnkern.metrics import accuracy
from gnnkern.nn import GINConv, global_add_pool

ELEMENTS = 5
WIDTH = 64


def molecule(generator: torch.Generator) -> Data:
    """A tree of 10 to 30 atoms, each bound to one of the three before it, and perhaps a ring."""

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    atoms = 10 + draw(21)
    bonds = [(atom, max(0, atom - 1 - draw(3))) for atom in range(1, atoms)]
    ring = draw(2)
    if ring:
        first = draw(atoms - 6)
        bonds.append((first, first + 5))
    one_way = torch.tensor(bonds).t()  # [2, bonds]
    element = torch.randint(ELEMENTS, (atoms,), generator=generator)
    return Data(
        x=F.one_hot(element, ELEMENTS).float(),
        edge_index=torch.cat((one_way, one_way.flip(0)), 1),
        y=torch.tensor([ring]),
    )


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH, bias=False))


class Net(nn.Module):
    """Three GIN layers and a readout, of either package."""

    def __init__(self, ours: bool) -> None:
        super().__init__()
        layer = GINConv if ours else pyg.GINConv
        self.pool = global_add_pool if ours else pyg.global_add_pool
        self.convs = nn.ModuleList([layer(mlp(width)) for width in (ELEMENTS, WIDTH, WIDTH)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(WIDTH) for _ in range(3)])
        self.head = nn.Linear(WIDTH, 2)
        self.ours = ours

    def forward(self, batch: Batch) -> Tensor:
        x, edges = batch.x, batch.edge_index
        if self.ours:
            # Sorted once for three layers, forward and backward.
            edges = gnnkern.Graph.from_edge_index(edges, batch.num_nodes)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x, edges)))
        out: Tensor = self.head(self.pool(x, batch.batch, batch.num_graphs))
        return out


def fit(model: Net, graphs: list[Data], count: int) -> Run:
    torch.manual_seed(0)
    loader = DataLoader(graphs, batch_size=64, shuffle=True)
    batches = endless(loader)

    def loss() -> Tensor:
        batch = next(batches)
        return F.cross_entropy(model(batch), batch.y)

    return train(model.parameters(), loss, count, lr=0.003)


def main() -> None:
    count = steps(150, 12, __doc__)
    generator = torch.Generator().manual_seed(0)
    graphs = [molecule(generator) for _ in range(800)]
    ours, theirs = Net(ours=True), Net(ours=False)
    ours.load_state_dict(theirs.state_dict())
    print(f"{len(graphs)} molecules, 64 in a batch, {count} batches")
    print(fit(ours, graphs[:600], count).compared("GIN", fit(theirs, graphs[:600], count)))

    ours.eval()
    (test,) = DataLoader(graphs[600:], batch_size=200)
    print(f"test accuracy: {accuracy(ours(test), test.y):.3f}")


if __name__ == "__main__":
    main()
