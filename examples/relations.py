"""A relational graph convolution on a heterogeneous graph without features.

    python examples/relations.py

Images and pixels are nodes. An image is joined to every pixel that is not white there, by a
relation that says how dark it is, and every pixel back to the image: eight relations of two node
types. All that a node has is its place, so that the first layer learns a row for each node and
relation. PyG's layer trains beside it, from the same weights.
"""

import torch
import torch.nn.functional as F
from shared import Run, digits, steps, train
from torch import Tensor, nn
from torch_geometric.nn import RGCNConv as PyGConv

import gnnkern
from gnnkern.metrics import accuracy
from gnnkern.nn import Relations, RGCNConv

LEVELS = 4
WIDTH = 16


def heterogeneous(pixels: Tensor) -> tuple[Tensor, Tensor]:  # [images, 64] in [0, 1]
    """Edges [2, E] between images, which come first, and pixels; and the relation [E] of each."""
    image, pixel = pixels.nonzero(as_tuple=True)
    level = (pixels[image, pixel] * LEVELS).ceil().long() - 1  # 0 to 3
    pixel = pixel + len(pixels)
    there, back = torch.stack((image, pixel)), torch.stack((pixel, image))
    return torch.cat((there, back), 1), torch.cat((level, level + LEVELS))


class RGCN(nn.Module):
    """Two layers, of either package."""

    def __init__(self, layer: type[nn.Module], num_nodes: int) -> None:
        super().__init__()
        # A row for the node itself would stay as it was drawn where its class is not known.
        self.conv1 = layer(num_nodes, WIDTH, 2 * LEVELS, root_weight=False)
        self.conv2 = layer(WIDTH, 10, 2 * LEVELS, num_bases=4)

    def forward(self, *edges: Relations | Tensor) -> Tensor:
        x = F.relu(self.conv1(None, *edges))
        out: Tensor = self.conv2(x, *edges)
        return out


def main() -> None:
    count = steps(50, 6, __doc__)
    pixels, y, _, known, test = digits(train_per_class=50)
    edge_index, edge_type = heterogeneous(pixels)
    num_nodes = len(y) + 64
    print(f"{num_nodes} nodes, {len(edge_type)} edges of {2 * LEVELS} relations, {count} epochs")

    theirs, ours = RGCN(PyGConv, num_nodes), RGCN(RGCNConv, num_nodes)
    ours.load_state_dict(theirs.state_dict())
    graph = gnnkern.Graph.from_edge_index(edge_index, num_nodes)
    # Grouped by relation once, for every layer and epoch.
    grouped = Relations.of(graph, edge_type, 2 * LEVELS)

    def fit(model: RGCN, *edges: Relations | Tensor) -> Run:
        def loss() -> Tensor:
            return F.cross_entropy(model(*edges)[: len(y)][known], y[known])

        return train(model.parameters(), loss, count, lr=0.02)

    before = fit(theirs, edge_index, edge_type)
    print(fit(ours, grouped).compared("RGCN", before))
    print(f"test accuracy: {accuracy(ours(grouped)[: len(y)][test], y[test]):.3f}")


if __name__ == "__main__":
    main()
