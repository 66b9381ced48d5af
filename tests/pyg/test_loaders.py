"""Sampled mini-batches and heterogeneous models without any compiled extension, patched or not."""

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")

# A module of None is one that cannot be imported; PyG looks once, so a process of its own.
BEGIN = """
import sys
sys.modules.update(dict.fromkeys(("torch_scatter", "torch_sparse", "pyg_lib")))
import gnnkern
from gnnkern import compat
compat.install()
import torch
from torch_geometric import nn as pyg
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import LinkNeighborLoader, NeighborLoader
torch.manual_seed(0)
N, E, F = 60, 500, 20
"""


def run(*codes):
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + "".join(map(textwrap.dedent, codes))],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


SAMPLED = """
        edges = torch.randint(N, (2, E))
        data = Data(x=torch.randn(N, F), edge_index=edges, edge_weight=torch.rand(E))
        data.time = torch.arange(N)

        def every(data, **options):
            torch.manual_seed(1)
            return list(NeighborLoader(data, [4, 3], batch_size=25, **options))

        for options in ({}, {"replace": True}, {"disjoint": True}, {"time_attr": "time"},
                        {"weight_attr": "edge_weight"}, {"subgraph_type": "induced"},
                        {"subgraph_type": "bidirectional"}, {"num_workers": 2}):
            seen = []
            for batch in every(data, **options):
                assert torch.equal(batch.x, data.x[batch.n_id])
                if options.get("subgraph_type") != "bidirectional":
                    assert torch.equal(batch.n_id[batch.edge_index], edges[:, batch.e_id])
                if "time_attr" in options:
                    seeds = data.time[batch.n_id[: batch.batch_size]]
                    assert (data.time[batch.n_id] <= seeds[batch.batch]).all()
                seen += batch.n_id[: batch.batch_size].tolist()
            assert seen == list(range(N))
        # All neighbours of all hops are a full pass, for the seeds.
        model = pyg.GraphSAGE(F, 16, 2, 8)
        full = model(data.x, data.edge_index)
        batch = next(iter(NeighborLoader(data, [-1, -1], batch_size=10)))
        out = model(batch.x, batch.edge_index)[:10]
        torch.testing.assert_close(out, full[:10])

        links = LinkNeighborLoader(data, [3, 2], batch_size=50, neg_sampling_ratio=1.0)
        batch = next(iter(links))
        assert batch.edge_label_index.shape == (2, 100)
        known = data.edge_index[:, :50]
        assert torch.equal(batch.n_id[batch.edge_label_index[:, :50]], known)

        models = [pyg.GraphSAGE(F, 16, 2, 8), pyg.GAT(F, 16, 2, 8), pyg.GCN(F, 16, 2, 8),
                  pyg.PNA(F, 16, 2, 8, aggregators=["mean", "max", "std"], scalers=["identity"],
                          deg=torch.ones(9))]
        def results():
            outs = []
            for batch in every(data):
                for model in models:
                    out = model(batch.x, batch.edge_index)
                    grads = torch.autograd.grad(out.square().sum(), list(model.parameters()))
                    outs += [out.detach(), *grads]
            return outs
        expected = results()
        with gnnkern.patched_pyg():
            actual = results()
            assert gnnkern.pyg_report().num_accelerated > 0
        torch.testing.assert_close(actual, expected, rtol=2e-3, atol=2e-4)
"""

HETEROGENEOUS = """
        data = HeteroData()
        sizes = {"a": 40, "b": 70}
        for name, size in sizes.items():
            data[name].x = torch.randn(size, F)
        for src, name, dst in (("a", "to", "b"), ("b", "back", "a"), ("b", "self", "b")):
            ends = [torch.randint(sizes[kind], (E,)) for kind in (src, dst)]
            data[src, name, dst].edge_index = torch.stack(ends)

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.first = pyg.SAGEConv((-1, -1), 16)
                self.second = pyg.GATConv((-1, -1), 8, add_self_loops=False)

            def forward(self, x, edge_index):
                return self.second(self.first(x, edge_index).relu(), edge_index)

        def convolutions():
            return pyg.HeteroConv({
                ("a", "to", "b"): pyg.GATv2Conv((F, F), 8, add_self_loops=False),
                ("b", "back", "a"): pyg.TransformerConv((F, F), 8),
                ("b", "self", "b"): pyg.SAGEConv(F, 8),
            })

        models = [pyg.to_hetero(Net(), data.metadata()), convolutions()]
        def batches(**options):
            torch.manual_seed(1)
            return list(NeighborLoader(data, [3, 2], input_nodes="b", batch_size=24, **options))

        for options in ({}, {"disjoint": True}, {"subgraph_type": "induced"}):
            for batch in batches(**options):
                for kind in data.edge_types:
                    src, _, dst = kind
                    row, col = batch[kind].edge_index
                    known = data[kind].edge_index[:, batch[kind].e_id]
                    assert torch.equal(batch[src].n_id[row], known[0])
                    assert torch.equal(batch[dst].n_id[col], known[1])

        def results():
            outs = []
            for batch in batches():
                for model in models:
                    out = model(batch.x_dict, batch.edge_index_dict)["b"]
                    leaves = [p for p in model.parameters() if p.requires_grad]
                    grads = torch.autograd.grad(out.square().sum(), leaves, allow_unused=True)
                    outs += [out.detach(), *(g for g in grads if g is not None)]
            return outs
        expected = results()
        with gnnkern.patched_pyg():
            actual = results()
            report = gnnkern.pyg_report().accelerated
            assert report["fused GATConv"] and report["fused TransformerConv"]
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)
"""


def test_sampled_batches_and_models_on_them():
    # In one process: importing PyG takes most of it.
    run(SAMPLED, HETEROGENEOUS)
