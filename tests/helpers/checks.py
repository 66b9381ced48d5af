"""The checks that every op has to pass, each over one `Call`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .cases import Call
from .tolerance import FLOOR, assert_as_good_as_torch


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill uninitialised memory with NaN, so that an unwritten element shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def leaves(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the tensors as inputs to differentiate by, with their strides kept."""
    return [tensor.detach().requires_grad_() for tensor in tensors]


def value_and_gradients(
    function: Callable[..., Tensor],
    tensors: tuple[Tensor, ...],
    upstream: Tensor | None = None,  # like the result; None: random, of the same seed
) -> tuple[Tensor, ...]:
    """Return the function's value and the gradient of every tensor."""
    inputs = leaves(tensors)
    out = function(*inputs)
    if upstream is None:
        generator = torch.Generator().manual_seed(1)
        upstream = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    gradients = torch.autograd.grad(out, inputs, upstream.to(out))
    return (out.detach(), *gradients)


def check_value(call: Call, backend: str) -> None:
    """Compare the value with float64, by the rule of `tolerance`."""
    with poisoned_memory():
        actual = call.run(*call.tensors, backend=backend)
    plain = call.reference(*call.tensors)
    exact = call.reference(*(tensor.double() for tensor in call.tensors))
    assert_as_good_as_torch(actual, plain, exact)


def check_gradient(call: Call, backend: str, upstream_layout: str = "contiguous") -> None:
    """Compare value and every gradient with float64, by the rule of `tolerance`."""
    doubles = tuple(tensor.double() for tensor in call.tensors)
    shape = call.reference(*doubles).shape
    upstream = _upstream(shape, call.tensors[0], upstream_layout)
    with poisoned_memory():
        run = _bind(call, backend)
        actual = value_and_gradients(run, call.tensors, upstream)
    plain = value_and_gradients(call.reference, call.tensors, upstream)
    exact = value_and_gradients(call.reference, doubles, upstream)
    # The gradient of a softmax is a difference of terms as large as the other gradients.
    terms = max(
        (float(e.abs().max()) for e in exact if e.numel() and e.isfinite().all()), default=0.0
    )
    names = ["out", *(f"gradient of tensor {i}" for i in range(len(call.tensors)))]
    for name, *results in zip(names, actual, plain, exact, strict=True):
        assert_as_good_as_torch(*results, what=name, terms=0.0 if name == "out" else terms)


def _upstream(shape: torch.Size, like: Tensor, layout: str) -> Tensor:
    upstream = torch.randn(shape, dtype=torch.float64).to(like)
    if layout == "transposed":
        return upstream.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded":
        # What the gradient of a sum is: one element with strides of 0.
        return like.new_full((), 0.5).expand(shape)
    return upstream


def _bind(call: Call, backend: str) -> Callable[..., Tensor]:
    def run(*tensors: Tensor) -> Tensor:
        return call.run(*tensors, backend=backend)

    return run


def check_part_of_gradients(call: Call, backend: str) -> None:
    """Compare the gradient of each tensor alone with its gradient beside the others."""
    run = _bind(call, backend)
    together = value_and_gradients(run, call.tensors)[1:]
    for i, expected in enumerate(together):

        def run_alone(tensor: Tensor, i: int = i) -> Tensor:
            return run(*call.tensors[:i], tensor, *call.tensors[i + 1 :])

        alone = value_and_gradients(run_alone, (call.tensors[i],))[1]
        assert torch.equal(alone, expected), f"gradient of tensor {i} alone differs"


def check_gradcheck(call: Call, backend: str) -> None:
    """Compare every gradient with a numerical Jacobian in double."""
    call = call.to(torch.float64)
    assert torch.autograd.gradcheck(_bind(call, backend), leaves(call.tensors))


def check_second_derivative(call: Call, backend: str) -> None:
    """Compare every second derivative with a numerical one in double."""
    call = call.to(torch.float64)
    assert torch.autograd.gradgradcheck(_bind(call, backend), leaves(call.tensors))


def check_no_second_derivative(call: Call, backend: str) -> None:
    """Assert that differentiating twice raises, and never returns something wrong.

    The reference is plain torch, which differentiates as often as it is asked.
    """
    inputs = leaves(call.tensors)
    out = call.run(*inputs, backend=backend)
    raises = pytest.raises(RuntimeError, match="second derivative")
    with raises if backend != "reference" else nullcontext():
        gradients = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), inputs)


def check_repeatable(call: Call, backend: str) -> None:
    """Assert equal bits of value and gradients, in a second run and on one thread."""
    run = _bind(call, backend)
    first = value_and_gradients(run, call.tensors)
    again = value_and_gradients(run, call.tensors)
    torch.set_num_threads(1)
    one_thread = value_and_gradients(run, call.tensors)
    for i, (a, b, c) in enumerate(zip(first, again, one_thread, strict=True)):
        assert same_bits(a, b), f"result {i} differs in a second run"
        assert same_bits(a, c), f"result {i} differs between two threads and one"


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether shapes, dtypes and bits are equal, those of NaN and -0 included."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    same_kind = a.shape == b.shape and a.dtype == b.dtype
    return same_kind and torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))


def check_compiled(call: Call, backend: str) -> None:
    """Assert that the op compiles without a graph break, to equal value and gradients."""
    # Triton and CUDA kernels are asked outside of the compiler whether they can run.
    call.run(*call.tensors, backend=backend)
    torch.compiler.reset()

    def scaled(*tensors: Tensor) -> Tensor:
        return 2 * call.op(*(1 * tensor for tensor in tensors), backend=backend)

    compiled = torch.compile(scaled, fullgraph=True, backend="aot_eager")
    for a, b in zip(
        value_and_gradients(compiled, call.tensors),
        value_and_gradients(scaled, call.tensors),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def check_autocast(call: Call, backend: str) -> None:
    """Assert that autocast takes float32, bfloat16 and both together, and keeps gradients' dtypes.

    The result is compared at the precision of bfloat16, which the op may or may not choose.
    """
    halves = call.to(torch.bfloat16).tensors
    singles = tuple(tensor.float() for tensor in halves)
    exact = call.reference(*(tensor.double() for tensor in halves))
    mixtures = [singles, halves, (halves[0], *singles[1:]), (singles[0], *halves[1:])]
    for tensors in mixtures:
        inputs = leaves(tensors)
        with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16):
            out = call.run(*inputs, backend=backend)
        assert out.dtype in (torch.float32, torch.bfloat16)
        expected = exact.to(torch.bfloat16).double()
        floor = 4 * FLOOR[torch.bfloat16].largest * expected.abs().max()
        assert (out.double() - expected).abs().max() <= floor
        gradients = torch.autograd.grad(out.float().square().sum(), inputs)
        for gradient, tensor in zip(gradients, inputs, strict=True):
            assert gradient.dtype == tensor.dtype
            assert gradient.isfinite().all()


class _Recorder(TorchDispatchMode):
    """Notes every torch operator of gnnkern that runs, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.namespace == "gnnkern":
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


class Sizes(TorchDispatchMode):
    """Notes the storages of new tensors that have at least so many elements."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.numel() >= self.least:
                self.storages.add(tensor.untyped_storage().data_ptr())
        return out


def check_operators(call: Call, backend: str) -> None:
    """Run `torch.library.opcheck` on every torch operator that value and gradients are made of.

    The reference is plain torch and has none.
    """
    with _Recorder() as recorder:
        value_and_gradients(_bind(call, backend), call.tensors)
    assert bool(recorder.calls) == (backend != "reference"), "which torch operators have run?"
    for operator, args, kwargs in recorder.calls:
        torch.library.opcheck(operator, _detached(args), _detached(kwargs))


def _detached(value: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, value)
