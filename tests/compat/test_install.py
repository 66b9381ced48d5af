"""Stand-ins under the original names, in processes of their own."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest

from gnnkern import compat

# A module of None is one that cannot be imported.
ABSENT = f"import sys; sys.modules.update(dict.fromkeys({compat.PACKAGES!r}))\n"
needs_pyg = pytest.mark.skipif(
    importlib.util.find_spec("torch_geometric") is None, reason="torch_geometric is not installed"
)


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", ABSENT + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_specs_and_versions():
    run(
        """
        import importlib, importlib.util, sys
        from gnnkern import compat
        assert compat.install() == ["torch_scatter", "torch_sparse", "pyg_lib"]
        assert compat.install() == ["torch_scatter", "torch_sparse", "pyg_lib"]
        import torch, torch_scatter, torch_sparse, pyg_lib, pyg_lib.ops
        import torch_scatter.composite
        from torch_scatter import scatter, scatter_max, segment_csr
        from torch_scatter.scatter import scatter_add
        from torch_scatter.utils import broadcast
        from torch_sparse import SparseTensor, coalesce
        from torch_sparse.tensor import SparseTensor as again
        from torch_sparse.storage import SparseStorage
        assert again is SparseTensor
        assert torch_scatter.scatter is scatter and callable(scatter)
        assert importlib.import_module("pyg_lib.ops") is pyg_lib.ops
        for name in compat.PACKAGES:
            spec = importlib.util.find_spec(name)
            assert spec is not None and spec.name == name
            assert importlib.import_module(name).__version__[0].isdigit()
        out, at = scatter_max(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 0, 2]))
        assert out.tolist() == [3.0, 0.0, 2.0] and at.tolist() == [1, 3, 2]
        try:
            compat.install(["torch_cluster"])
        except ValueError as error:
            assert "packages are torch_scatter, torch_sparse, pyg_lib" in str(error)
        else:
            raise AssertionError
        compat.uninstall()
        assert "torch_scatter" not in sys.modules
        assert "torch_scatter.composite" not in sys.modules
        """
    )


def test_a_package_that_is_there_stays():
    run(
        """
        import types
        real = sys.modules["torch_sparse"] = types.ModuleType("torch_sparse")
        from gnnkern import compat
        assert compat.install() == ["torch_scatter", "pyg_lib"]
        import torch_sparse
        assert torch_sparse is real
        compat.uninstall()
        assert sys.modules["torch_sparse"] is real
        """
    )


@needs_pyg
def test_pyg_runs_on_the_stand_ins():
    run(
        """
        from gnnkern import compat
        compat.install()
        import torch
        import torch_geometric.typing
        from torch_geometric import EdgeIndex
        from torch_geometric.nn import GATConv, GCNConv, RGCNConv, SAGEConv, TransformerConv
        from torch_geometric.nn.conv.gcn_conv import gcn_norm
        from torch_geometric.transforms import ToSparseTensor
        from torch_geometric.data import Data, Batch
        from torch_geometric.utils import scatter, segment, softmax, index_sort
        import torch_sparse
        flags = ("TORCH_SCATTER", "TORCH_SPARSE", "PYG_LIB", "SEGMM", "GMM", "SAMPLED_OP")
        for flag in (*flags, "SOFTMAX", "INDEX_SORT"):
            assert getattr(torch_geometric.typing, f"WITH_{flag}"), flag
        assert not torch_geometric.typing.WITH_KNN

        torch.manual_seed(0)
        edge_index = torch.randint(20, (2, 90))
        edge_index = torch.unique(edge_index, dim=1)
        x = torch.randn(20, 8)
        data = ToSparseTensor()(Data(x=x, edge_index=edge_index, num_nodes=20))
        adj = data.adj_t
        assert isinstance(adj, torch_sparse.SparseTensor)
        for conv in (GCNConv(8, 4), SAGEConv(8, 4), SAGEConv(8, 4, aggr="max"),
                     GATConv(8, 4, heads=2), TransformerConv(8, 4)):
            dense, sparse = conv(x, edge_index), conv(x, adj)
            torch.testing.assert_close(dense, sparse, rtol=1e-5, atol=1e-5)
            if not isinstance(conv, (GCNConv, SAGEConv)):
                continue  # which PyG 2.8 does not script
            script = torch.jit.script(conv)
            torch.testing.assert_close(script(x, edge_index), dense, rtol=1e-5, atol=1e-5)
        batch = Batch.from_data_list([data, data])
        assert batch.adj_t.sparse_sizes() == (40, 40)
        assert batch[1].adj_t == adj

        # Sorted relations use segment_matmul.
        relation = torch.randint(3, (edge_index.shape[1],)).sort().values
        conv = RGCNConv(8, 4, 3, is_sorted=True, aggr="sum")
        plain = RGCNConv(8, 4, 3, aggr="sum")
        plain.load_state_dict(conv.state_dict())
        torch.testing.assert_close(
            conv(x, edge_index, relation), plain(x, edge_index, relation), rtol=1e-5, atol=1e-5
        )

        # EdgeIndex goes through torch.ops.torch_sparse where values are differentiated.
        order = edge_index[0].argsort(stable=True)
        index = EdgeIndex(edge_index[:, order], sparse_size=(20, 20), sort_order="row")
        value = torch.rand(index.shape[1], requires_grad=True)
        for reduce in ("sum", "mean", "min", "max"):
            out = index.matmul(x.requires_grad_(), value, reduce=reduce)
            messages = x[index[1]] * value.unsqueeze(1)
            expected = torch.zeros(20, 8).scatter_reduce(
                0, index.as_tensor()[0].unsqueeze(1).expand_as(messages), messages,
                {"min": "amin", "max": "amax"}.get(reduce, reduce), include_self=False)
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
            mine = torch.autograd.grad(out.square().sum(), (x, value))
            theirs = torch.autograd.grad(expected.square().sum(), (x, value))
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)

        ptr = torch.tensor([0, 4, 4, 20])
        torch.testing.assert_close(
            softmax(x.detach(), ptr=ptr), torch.cat([x[:4].softmax(0), x[4:].softmax(0)]).detach()
        )
        assert segment(x, ptr, reduce="max").shape == (3, 8)
        """
    )


@needs_pyg
def test_too_late_is_said():
    run(
        """
        import warnings
        import torch_geometric
        from gnnkern import compat
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compat.install(["torch_scatter"])
        assert "torch_geometric was imported before" in str(caught[-1].message)
        """
    )
