"""`load`: a graph from a path or from a short description of what to generate."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnkern.data._files import StrPath
from gnnkern.data.digits import digits_graph
from gnnkern.data.edge_list import read_edge_list
from gnnkern.data.generators import grid, hub, power_law, rmat, star, uniform
from gnnkern.data.graph_data import GraphData
from gnnkern.data.matrix_market import read_matrix_market
from gnnkern.data.npz import read_npz
from gnnkern.data.ogb import read_ogb
from gnnkern.data.planetoid import read_planetoid


@dataclass(frozen=True)
class _Spec:
    """A generator and the kinds of the numbers after its name."""

    function: Callable[..., GraphData]
    usage: str
    kinds: tuple[type[int] | type[float], ...] = ()
    num_required: int = 0


_SPECS = {
    "digits": _Spec(digits_graph, "digits"),
    "powerlaw": _Spec(
        power_law, "powerlaw:nodes,edges,max_degree[,community_fraction]", (int, int, int, float), 3
    ),
    "rmat": _Spec(rmat, "rmat:nodes,edges", (int, int), 2),
    "uniform": _Spec(uniform, "uniform:nodes,edges", (int, int), 2),
    "hub": _Spec(hub, "hub:nodes,edges,hub_degree", (int, int, int), 3),
    "grid": _Spec(grid, "grid:rows,cols", (int, int), 2),
    "star": _Spec(star, "star:leaves", (int,), 1),
}

_EDGE_LIST_SUFFIXES = (".txt", ".tsv", ".csv", ".edges", ".edgelist", ".el")

_UNDERSTOOD = (
    ".npz, .mtx[.gz], an edge list ("
    + " ".join(_EDGE_LIST_SUFFIXES)
    + ", plain or .gz), a folder with Planetoid's ind.* files or with OGB's raw/edge.csv[.gz], or "
    + ", ".join(spec.usage for spec in _SPECS.values())
)


def load(source: StrPath, **options: Any) -> GraphData:
    """Return the graph that `source` names: a file, a folder or a generated graph.

    | source | read by |
    |---|---|
    | `graph.npz` | `read_npz` |
    | `matrix.mtx`, `matrix.mtx.gz` | `read_matrix_market` |
    | `.txt .tsv .csv .edges .edgelist .el`, plain or `.gz` | `read_edge_list` |
    | folder with `ind.<name>.graph` | `read_planetoid` |
    | folder with `raw/edge.csv` or `raw/edge.csv.gz` | `read_ogb` |
    | `digits` | `digits_graph` |
    | `powerlaw:nodes,edges,max_degree[,community_fraction]` | `power_law` |
    | `rmat:nodes,edges`, `uniform:nodes,edges` | `rmat`, `uniform` |
    | `hub:nodes,edges,hub_degree` | `hub` |
    | `grid:rows,cols`, `star:leaves` | `grid`, `star` |

    A file with another suffix is recognised by its first bytes if it is an `.npz` archive or a
    Matrix Market file. A file that is named like a generated graph is reached by `./digits`.

    Args:
        source: a path or one of the descriptions above; numbers may be written as `1_000_000`.
        **options: keyword arguments of that reader or generator, such as `seed=1`.

    Raises:
        FileNotFoundError: there is no such path; the message names it.
        ValueError: nothing reads such a source, or what it says is wrong.
        TypeError: an option that the reader or generator does not have.
    """
    if isinstance(source, str):
        word, colon, numbers = source.partition(":")
        if word in _SPECS:
            return _generate(source, _SPECS[word], numbers if colon else None, options)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path} (load reads {_UNDERSTOOD})")
    return _reader(path)(path, **options)


def _generate(source: str, spec: _Spec, numbers: str | None, options: dict[str, Any]) -> GraphData:
    return spec.function(*_values(source, spec, numbers), **options)


def numbers_of(source: str, word: str) -> list[int | float] | None:
    """The numbers behind a generator's name; None: the source is no graph of that generator.

    Raises:
        ValueError: there are too many or too few, or one is no number.
    """
    name, colon, numbers = source.partition(":")
    return _values(source, _SPECS[word], numbers if colon else None) if name == word else None


def _values(source: str, spec: _Spec, numbers: str | None) -> list[int | float]:
    fields = numbers.split(",") if numbers else []
    if not spec.num_required <= len(fields) <= len(spec.kinds):
        got = f"{len(fields)} numbers"
        raise ValueError(f"load: {source!r} should read {spec.usage!r}, got {got}")
    try:
        return [kind(field) for kind, field in zip(spec.kinds, fields, strict=False)]
    except ValueError as error:
        raise ValueError(f"load: {source!r} should read {spec.usage!r}: {error}") from None


def _reader(path: Path) -> Callable[..., GraphData]:
    if path.is_dir():
        if any(path.glob("ind.*.graph")) or any(path.glob("raw/ind.*.graph")):
            return read_planetoid
        if any(path.glob("raw/edge.csv*")):
            return read_ogb
        raise ValueError(
            f"{path}: the folder has neither ind.<name>.graph (Planetoid) "
            "nor raw/edge.csv[.gz] (OGB)"
        )
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if path.suffix == ".npz":
        return read_npz
    if suffix == ".mtx":
        return read_matrix_market
    if suffix in _EDGE_LIST_SUFFIXES:
        return read_edge_list
    begin = _first_bytes(path)
    if begin.startswith(b"PK\x03\x04"):
        return read_npz
    if begin.startswith(b"%%MatrixMarket"):
        return read_matrix_market
    raise ValueError(f"{path}: unknown kind of file; load reads {_UNDERSTOOD}")


def _first_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(16)
    except (gzip.BadGzipFile, EOFError):
        return b""
