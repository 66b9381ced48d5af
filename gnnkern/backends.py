"""The choice among the implementations of an op, and the reasons for it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from gnnkern import _cuda, _native, _preferences, _triton
from gnnkern.settings import backend_from_environment

__all__ = [
    "BackendUnavailable",
    "Choice",
    "Implementation",
    "Query",
    "choose",
    "cpu_unsupported",
    "cuda_unsupported",
    "report",
    "survey",
    "triton_unsupported",
    "use_backend",
]

BACKENDS = ("auto", "reference", "cpu", "triton", "cuda")
FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class BackendUnavailable(RuntimeError):
    """No implementation of an op can run, or the one asked for cannot."""


class Query(NamedTuple):
    """What a call looks like to the chooser."""

    device_type: str
    dtype: torch.dtype


class Implementation(NamedTuple):
    """One way to run an op."""

    backend: str
    launch: Callable[..., Any]
    # The reasons why a call cannot run here; empty: it can.
    unsupported: Callable[[Query], list[str]]


def cpu_unsupported(query: Query) -> list[str]:
    """Why the C++ kernels cannot run a call."""
    reasons = []
    if _native.native is None:
        reasons.append(f"the C++ module did not load: {_native.native_error}")
    if query.device_type != "cpu":
        reasons.append(f"it runs on CPU tensors, got {query.device_type}")
    reasons += _dtype_reasons(query)
    return reasons


def triton_unsupported(query: Query) -> list[str]:
    """Why the Triton kernels cannot run a call."""
    reasons = []
    if query.device_type == "cpu" and not _triton.INTERPRETS:
        reasons.append(
            "it runs on CUDA tensors, got cpu, where Triton's interpreter alone could run it: "
            "set TRITON_INTERPRET=1 before the import"
        )
    elif query.device_type not in ("cpu", "cuda"):
        reasons.append(f"it runs on CUDA tensors, got {query.device_type}")
    elif query.device_type == "cuda" and _triton.INTERPRETS:
        reasons.append("TRITON_INTERPRET is set, and the interpreter runs on CPU tensors")
    reasons += _dtype_reasons(query)
    # Nobody is kept waiting for the import where the answer is no already.
    error = None if reasons else _triton.import_error()
    if error is not None:
        reasons.append(error)
    return reasons


def cuda_unsupported(query: Query) -> list[str]:
    """Why the CUDA kernels cannot run a call."""
    reasons = []
    if _cuda.hosted():
        if query.device_type != "cpu":
            reasons.append(f"a host executor runs it, on CPU tensors, got {query.device_type}")
    elif query.device_type != "cuda":
        reasons.append(f"it runs on CUDA tensors, got {query.device_type}")
    reasons += _dtype_reasons(query)
    # Asked last, and where nothing else speaks against it or there is no GPU: it asks the driver.
    if not reasons or not torch.cuda.is_available():
        error = _cuda.unusable()
        reasons += [error] if error is not None else []
    return reasons


def _dtype_reasons(query: Query) -> list[str]:
    if query.dtype in FLOAT_DTYPES:
        return []
    return [f"it takes {', '.join(map(str, FLOAT_DTYPES))}, got {query.dtype}"]


def _is_eligible(name: str, wanted: str, query: Query) -> bool:
    """Whether the wish allows a backend.

    Kernels for GPUs run on CPU tensors, interpreted, where they are asked for by name alone.
    """
    if wanted == "auto":
        return not (name in ("triton", "cuda") and query.device_type == "cpu")
    return wanted == name


# Where CUDA's kernels are preferred to Triton's; the tables of implementations have Triton first.
_CUDA_FIRST = {"cpu": 0, "cuda": 1}


def _in_turn(op: str, implementations: Sequence[Implementation]) -> Sequence[Implementation]:
    """An op's implementations, best first."""
    if _preferences.first_on_gpu(op) == "triton":
        return implementations
    return sorted(implementations, key=lambda row: _CUDA_FIRST.get(row.backend, 2))


def reference_unsupported(query: Query) -> list[str]:
    """Plain torch runs wherever torch does."""
    return []


class _Forced(threading.local):
    """The backend that `use_backend` put in force in this thread."""

    name = backend_from_environment()


_forced = _Forced()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op inside the block, in this thread, on one backend.

    Args:
        name: "auto", "reference", "cpu", "triton" or "cuda".

    Raises:
        ValueError: the name is none of these.
        BackendUnavailable: by an op inside the block, where the backend cannot run it.
    """
    _check_name("use_backend", name)
    previous = _forced.name
    _forced.name = name
    try:
        yield
    finally:
        _forced.name = previous


def _check_name(who: str, name: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"{who}: backend must be one of {', '.join(BACKENDS)}, got {name!r}")


def choose(
    op: str,
    implementations: Sequence[Implementation],
    query: Query,
    backend: str | None,
    linear: bool = False,
) -> Implementation:
    """The implementation that runs a call; one that is linear runs under torch.func as well.

    With "auto" the first one without a reason against it; landing on the reference that way gives
    one warning, since it is slow.

    Raises:
        ValueError: `backend` is no backend's name.
        BackendUnavailable: nothing can run; the message lists every backend with its reasons.
    """
    wanted = _forced.name if backend is None else backend
    for implementation in _in_turn(op, implementations):
        if not _is_eligible(implementation.backend, wanted, query):
            continue
        if not implementation.unsupported(query):
            if wanted == "auto" and implementation.backend == "reference":
                _warn_slow(op, _list_reasons(implementations, query))
            if not linear and implementation.backend != "reference":
                _refuse_transforms(op)
            return implementation
    _check_name(op, wanted)
    raise BackendUnavailable(
        f"{op}: backend {wanted!r} cannot run on {query.device_type} with {query.dtype}:\n"
        + _list_reasons(implementations, query)
    )


class Choice(NamedTuple):
    """What `choose` would do with a call."""

    backend: str | None  # None: it would raise
    why: str
    against: dict[str, list[str]]  # the reasons against every other backend


def survey(
    op: str, implementations: Sequence[Implementation], query: Query, backend: str | None
) -> Choice:
    """Say what `choose` would do, without warnings or errors but that of a name unknown."""
    wanted = _forced.name if backend is None else backend
    _check_name(op, wanted)
    reasons = {name: ["not implemented for this op"] for name in BACKENDS[1:]}
    reasons |= {i.backend: i.unsupported(query) for i in implementations}
    able = [i.backend for i in _in_turn(op, implementations) if not reasons[i.backend]]
    chosen = next((name for name in able if _is_eligible(name, wanted, query)), None)
    source = "backend=" if backend is not None else "use_backend or GNNKERN_BACKEND"
    if chosen is None:
        asked = f"{source} asks for {wanted}, which cannot run it"
        why = "no backend can run it" if wanted == "auto" else asked
    elif wanted != "auto":
        why = f"{source} asks for it"
    else:
        why = "the first of this op's implementations that can run, fastest first"
        if query.device_type == "cuda" and {"triton", "cuda"} <= set(able):
            why += f"; {_preferences.why_first(op)}"
    for name in able:
        if name != chosen:
            later = f"it can run, but {chosen} comes first"
            reasons[name] = [later if wanted == "auto" else "it can run, but another is asked for"]
    return Choice(chosen, why, {name: why for name, why in reasons.items() if name != chosen})


# What differentiates forward, or in batches, instead of an op that does not.
ALTERNATIVES = (
    "spmm, segment_reduce and scatter_reduce with sum and mean, sddmm and segment_gather have "
    "them on every backend, and backend='reference' has them for all ops through plain torch"
)


def _refuse_transforms(op: str) -> None:
    """Kernels read memory, which the tensors inside a transform of torch.func do not have."""
    if torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"{op}: the transforms of torch.func (grad, jvp, vmap) are not implemented for this "
            f"call; {ALTERNATIVES}"
        )


def _list_reasons(implementations: Sequence[Implementation], query: Query) -> str:
    lines = []
    present = {implementation.backend for implementation in implementations}
    for implementation in implementations:
        reasons = implementation.unsupported(query)
        lines.append(f"  {implementation.backend}: {'; '.join(reasons) or 'can run'}")
    lines += [
        f"  {name}: not implemented for this op" for name in BACKENDS[1:] if name not in present
    ]
    return "\n".join(lines)


_warned: set[str] = set()


def _warn_slow(op: str, reasons: str) -> None:
    if torch.compiler.is_compiling() or op in _warned:
        return
    _warned.add(op)
    warnings.warn(
        f"{op} runs on its slow reference (name it with backend='reference' to accept that):\n"
        + reasons,
        stacklevel=4,
    )


def report() -> list[tuple[str, str, list[str]]]:
    """(op, backend, reasons why it cannot run) for every op and backend, float32.

    Backends for GPUs are asked about tensors on one, where there is one.
    """
    from gnnkern import ops

    rows = []
    for op, implementations in ops.implementations().items():
        known = {implementation.backend: implementation for implementation in implementations}
        for name in BACKENDS[1:]:
            on_gpu = name in ("triton", "cuda") and torch.cuda.is_available()
            query = Query("cuda" if on_gpu else "cpu", torch.float32)
            reasons = known[name].unsupported(query) if name in known else ["not implemented yet"]
            rows.append((op, name, reasons))
    return rows
