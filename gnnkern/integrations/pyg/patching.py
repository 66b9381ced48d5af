"""`patch_pyg`: PyG's functions on gnnkern's kernels, in place, and back."""

from __future__ import annotations

import importlib
import importlib.util
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gnnkern.integrations.pyg import fusing, memo, report, scope
from gnnkern.integrations.pyg.graph_cache import GraphCache
from gnnkern.integrations.pyg.ops import Ops
from gnnkern.integrations.pyg.rebind import rebind, replacement, restore

__all__ = ["patch_pyg", "patched_pyg", "unpatch_pyg"]

LEVELS = ("ops", "fuse")
# Minor versions of torch_geometric that the tests ran on.
TESTED = ("2.8",)

_lock = threading.RLock()


class _Patch:
    """What is in force."""

    level: str | None = None
    pairs: list[tuple[Any, Any]] = []  # noqa: RUF012
    undo: list[Callable[[], None]] = []  # noqa: RUF012
    cache: Any = None


def patch_pyg(
    level: str = "fuse", *, max_cache_bytes: int = 2**30, check_writes: bool = False
) -> None:
    """Run PyG's layers on gnnkern's kernels, those made already and those made later.

    Args:
        level: "ops": `scatter`, `segment`, `softmax`, `spmm`, `index_sort` and the products of
            `EdgeIndex`, wherever a module names them; self loops and `gcn_norm` are remembered for
            an edge_index that comes again. "fuse": also, messages are not made where a reduction
            can read the features of the nodes instead.
        max_cache_bytes: Bound of the graphs kept.
        check_writes: Find writes to an edge_index that no counter sees: by `.data`, numpy, DLPack.
            It reads the edges at every use of a graph.

    Calling it again changes the level and counts from 0. A model needs no change, and its
    `state_dict` has none. Calls that the kernels do not take are PyG's as before, and
    `gnnkern.pyg_report()` names them.

    What "fuse" does otherwise than PyG, beside rounding: of equal messages under a maximum or
    minimum the first edge takes the whole gradient; the dropout of attention weights draws other
    random numbers; maxima, minima, several aggregations at once and attention layers have one
    derivative, and a second raises an error. "ops" has all of these as PyG has them.

    Raises:
        ImportError: torch_geometric is not installed.
        ValueError: the level is none of these.

    Warns:
        UserWarning: of a version of torch_geometric that was not tested.
    """
    if level not in LEVELS:
        raise ValueError(f"patch_pyg: level must be one of {', '.join(LEVELS)}, got {level!r}")
    if importlib.util.find_spec("torch_geometric") is None:
        raise ImportError("patch_pyg: torch_geometric is not installed: pip install gnnkern[pyg]")
    with _lock:
        unpatch_pyg()
        _warn_untested()
        _patch(level, GraphCache(max_cache_bytes, check_writes))
        _Patch.level = level
        scope.set_everywhere(True)


def ensure_patched() -> None:
    """Have the patches there for accelerated models, and in force in these alone."""
    if _Patch.level is None:
        with _lock:
            patch_pyg("fuse")
            scope.set_everywhere(False)


def unpatch_pyg() -> None:
    """Put PyG's own functions back, and forget the graphs.

    Models that were accelerated by themselves patch PyG again for their own use.
    """
    with _lock:
        scope.set_everywhere(False)
        for undo in reversed(_Patch.undo):
            undo()
        restore(_Patch.pairs)
        _Patch.level, _Patch.pairs, _Patch.undo, _Patch.cache = None, [], [], None


@contextmanager
def patched_pyg(
    level: str = "fuse", *, max_cache_bytes: int = 2**30, check_writes: bool = False
) -> Iterator[None]:
    """`patch_pyg` inside a block; then PyG is as it was before, patched or not."""
    before = _Patch.level if scope.is_everywhere() else None
    patch_pyg(level, max_cache_bytes=max_cache_bytes, check_writes=check_writes)
    try:
        yield
    finally:
        if before is None:
            unpatch_pyg()
        elif before != level:
            patch_pyg(before)


def _warn_untested() -> None:
    import torch_geometric

    version = ".".join(torch_geometric.__version__.split(".")[:2])
    if version not in TESTED:
        warnings.warn(
            f"patch_pyg: torch_geometric {torch_geometric.__version__} was not tested, but "
            f"{', '.join(TESTED)}",
            stacklevel=3,
        )


def _patch(level: str, cache: GraphCache) -> None:
    # Names that are bound by import have to be there first.
    importlib.import_module("torch_geometric.nn")
    conv = importlib.import_module("torch_geometric.nn.conv.gcn_conv")
    utils = importlib.import_module("torch_geometric.utils")
    edge_index = importlib.import_module("torch_geometric.edge_index")
    names = ("scatter", "segment", "softmax", "spmm", "index_sort")
    originals = {name: getattr(utils, name) for name in names}
    originals["edge_index_product"] = edge_index._spmm
    helpers = {name: getattr(utils, name) for name in memo.NAMES if name != "gcn_norm"}
    helpers["gcn_norm"] = conv.gcn_norm
    report.reset()
    ops = Ops(originals, cache) if level == "ops" else fusing.FusedOps(originals, cache)
    remembered = memo.Memo(helpers, cache)
    new = {name: getattr(ops, name) for name in originals}
    new |= {name: remembered.function(name) for name in memo.NAMES}
    originals |= helpers
    pairs = [(originals[name], replacement(originals[name], new[name])) for name in new]
    rebind(pairs)
    _Patch.pairs, _Patch.cache = pairs, cache
    if isinstance(ops, fusing.FusedOps):
        _Patch.undo.append(fusing.apply(ops))
