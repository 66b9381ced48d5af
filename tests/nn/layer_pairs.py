"""Compares a layer with PyG's of the same name: values, gradients, parameter names both ways."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import gnnkern

# PyG sums in another order; float64 tells a wrong formula from a different rounding.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
DTYPES = tuple(TOLERANCE)

Features = Tensor | tuple[Tensor, Tensor | None]


def awkward_edges(num_src: int = 12, num_dst: int = 12, num_edges: int = 60) -> Tensor:  # [2, E]
    """Return edges with loops and repeats where nodes 3 and the last have none at all.

    No loop is repeated: PyG writes the weight of each onto its node, the last one stays, but torch
    gives the gradient to all of them.
    """
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(num_src - 1, (num_edges,), generator=generator)
    destination = torch.randint(num_dst - 1, (num_edges,), generator=generator)
    edge_index = torch.stack([source, destination])
    edge_index = edge_index[:, source != destination]
    edge_index[:, :3] = torch.tensor([[5], [2]])
    loops = torch.tensor([[1, 0, 6], [1, 0, 6]])
    edge_index = torch.cat([edge_index[:, :8], loops, edge_index[:, 8:]], dim=1)
    return edge_index[:, (edge_index != 3).all(0)]


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, tuple):
        return tuple(_cast(item, dtype) for item in value)
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() and value.layout is torch.strided else []
    if isinstance(value, tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return []


def _fresh(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_fresh(item) for item in value)
    if isinstance(value, Tensor) and value.is_floating_point() and value.layout is torch.strided:
        return value.detach().clone().requires_grad_()
    return value


def _run(layer: nn.Module, x: Features, edges: Any, options: dict[str, Any]) -> list[Tensor]:
    """Return outputs, then the gradients of x, of edge tensors and of every parameter."""
    x, options = _fresh(x), {name: _fresh(value) for name, value in options.items()}
    layer.zero_grad()
    outputs = layer(x, edges, **options)
    outputs = _leaves(outputs if isinstance(outputs, tuple) else (outputs,))
    generator = torch.Generator().manual_seed(11)
    loss = sum(
        (out * torch.randn(out.shape, generator=generator, dtype=out.dtype)).sum()
        for out in outputs
    )
    loss.backward()
    leaves = _leaves(x) + [leaf for value in options.values() for leaf in _leaves(value)]
    gradients = [leaf.grad for leaf in leaves]
    gradients += [parameter.grad for _, parameter in sorted(layer.named_parameters())]
    gradients = [torch.zeros(1) if gradient is None else gradient for gradient in gradients]
    return [out.detach() for out in outputs] + gradients


class _Watch(TorchDispatchMode):
    def __init__(self, num_edges: int) -> None:
        super().__init__()
        self.num_edges = num_edges
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        views = {id(arg) for arg in args if isinstance(arg, Tensor)} if func.is_view else set()
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and not views:
                shape = tuple(tensor.shape)
                if shape[:1] == (self.num_edges,) and tensor.numel() > self.num_edges:
                    self.shapes.append(shape)
        return out


def edge_tensors_made(
    layer: nn.Module, x: Features, graph: Any, num_edges: int, **options: Any
) -> list[tuple[int, ...]]:
    """Return the shapes of what forward and backward make with a row per edge, wider than 1.

    Results that are written in place count once more.
    """
    x, options = _fresh(x), {name: _fresh(value) for name, value in options.items()}
    layer(x, graph, **options).sum().backward()
    with _Watch(num_edges) as watch:
        layer(x, graph, **options).square().sum().backward()
    return watch.shapes


def same_state(
    ours: nn.Module, theirs: nn.Module, dtype: torch.dtype
) -> tuple[nn.Module, nn.Module]:
    """Return both with the same parameters, which each has loaded from the other."""
    assert repr(ours) == repr(theirs)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(-1, 1)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def assert_same_layer(
    ours: nn.Module,
    theirs: nn.Module,
    x: Features,
    edges: Tensor,
    num_nodes: tuple[int, int],
    dtype: torch.dtype,
    **options: Any,
) -> None:
    """Assert that both layers agree once they share a `state_dict`, for a Graph and for `edges`."""
    ours, theirs = same_state(ours, theirs, dtype)
    x, options = _cast(x, dtype), {name: _cast(value, dtype) for name, value in options.items()}
    expected = _run(theirs, x, edges, options)
    if edges.layout is torch.strided:
        graph = gnnkern.Graph.from_edge_index(edges, num_nodes)
    else:
        graph = gnnkern.Graph.from_torch_sparse(edges)
    inputs = [edges, graph] if edges.layout is torch.strided or not options else [edges]
    for given in inputs:
        actual = _run(ours, x, given, options)
        assert len(actual) == len(expected)
        for mine, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
