"""Writes the generated parts of README.md and CONTRIBUTING.md: `python docs/generate.py`.

A part stands between `<!-- begin NAME -->` and `<!-- end -->`; everything else is written by hand.

| name | what it becomes |
|---|---|
| `ops` | the table of ops: their meanings, backends and gradients |
| `benchmarks` | the ratios of the committed results in bench/results/cpu, or how to make some |
| `layers` | the table of layers: their constructors, formulas and ops |
| `aggregations` | the table of aggregations: their names, constructors and meanings |
| `models` | steps of PyG's models, patched and not, from bench/results/pyg/models.json |
| `file PATH` | the whole file |
| `file PATH / FIRST` | from the line that starts with FIRST to the next empty line |
| `file PATH / FIRST / LAST` | from the line that starts with FIRST to one that starts with LAST |
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import torch

from gnnkern import nn, ops

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/layers.md")
RESULTS = ROOT / "bench" / "results" / "cpu"

_PART = re.compile(r"<!-- begin (?P<name>.+?) -->\n.*?<!-- end -->", re.DOTALL)
_LANGUAGES = {".py": "python", ".cpp": "cpp", ".h": "cpp", ".txt": "cmake"}


def render(document: str) -> str:
    """Return the text of a document with every generated part written anew."""
    return _PART.sub(lambda part: _render_part(part["name"]), document)


def _render_part(name: str) -> str:
    kind, _, what = name.partition(" ")
    if kind == "ops":
        body = ops_table()
    elif kind == "benchmarks":
        body = benchmarks()
    elif kind == "layers":
        body = layers_table()
    elif kind == "aggregations":
        body = aggregations_table()
    elif kind == "models":
        body = models()
    elif kind == "file":
        body = excerpt(*what.split(" / "))
    else:
        raise ValueError(f"docs: no such part as {name!r}")
    return f"<!-- begin {name} -->\n{body}\n<!-- end -->"


# -- ops -------------------------------------------------------------------------------------------


def ops_table() -> str:
    """Return a row per op: its meaning and gradients from its docstrings, its backends."""
    rows = [
        [
            f"[`{op}`](gnnkern/ops/{op}.py)",
            _meaning(op),
            ", ".join(f"`{implementation.backend}`" for implementation in implementations),
            _gradients(op),
        ]
        for op, implementations in ops.implementations().items()
    ]
    return _table(["op", "meaning", "backends", "gradients"], rows)


def _meaning(op: str) -> str:
    """Return what the first line of the op's module says after its name."""
    first_line = (importlib.import_module(f"gnnkern.ops.{op}").__doc__ or "").splitlines()[0]
    name, colon, meaning = first_line.partition(": ")
    if name != op or not colon:
        raise ValueError(f"docs: gnnkern/ops/{op}.py must begin with '{op}: what it means.'")
    return meaning.rstrip(".")


def _gradients(op: str) -> str:
    """Return the sentence after `Gradients:` in the docstring of the public function."""
    found = re.search(r"Gradients: (.+?)\.\s*\n\s*\n", getattr(ops, op).__doc__ or "", re.DOTALL)
    if not found:
        raise ValueError(f"docs: the docstring of {op} must have a paragraph 'Gradients: ...'")
    return " ".join(found[1].split())


# -- layers ----------------------------------------------------------------------------------------


def layers_table() -> str:
    """Return a row per layer: its constructor, its formula and what its docstring says of ops."""
    layers = [
        kind
        for kind in _classes()
        if not issubclass(kind, nn.Aggregation) and "Ops: " in (kind.__doc__ or "")
    ]
    rows = [[_signature(kind), _first_line(kind), _ops(kind)] for kind in layers]
    return _table(["layer", "what it computes", "ops"], rows)


def aggregations_table() -> str:
    """Return a row per aggregation: its constructor and its meaning."""
    kinds = [k for k in _classes() if issubclass(k, nn.Aggregation) and k is not nn.Aggregation]
    return _table(["aggregation", "meaning"], [[_signature(k), _first_line(k)] for k in kinds])


def _classes() -> list[type]:
    return [kind for kind in map(nn.__dict__.get, nn.__all__) if isinstance(kind, type)]


def _signature(kind: type) -> str:
    """Return a constructor without annotations, such as `GCNConv(in_channels, out_channels)`."""
    if kind.__init__ is torch.nn.Module.__init__:
        return f"`{kind.__name__}()`"
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(kind).parameters.values()
    ]
    return f"`{kind.__name__}{inspect.Signature(bare)}`"


def _first_line(kind: type) -> str:
    """Return the first sentence of a class, a formula as code."""
    text = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return (text if text.startswith("`") else text.split(". ")[0]).rstrip(".").replace("|", "\\|")


def _ops(kind: type) -> str:
    found = re.search(r"Ops: (.+?)\.\s*\n\s*\n", kind.__doc__ or "", re.DOTALL)
    assert found is not None
    return " ".join(found[1].split())


# -- benchmarks ------------------------------------------------------------------------------------


def benchmarks() -> str:
    """Return a table per committed file of results, or the way to one."""
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        return (
            "No results are committed yet. `make bench` measures every kernel, beside its peers, "
            "on your machine."
        )
    return "\n\n".join(_results(file) for file in files)


def _results(file: Path) -> str:
    """Return how many times as fast as its peers gnnkern is, below where that was measured."""
    results: dict[str, Any] = json.loads(file.read_text())
    link = f"[{file.name}](bench/results/cpu/{file.name})"
    cells = [cell for cell in results["cells"] if cell["best_peer"] is not None]
    graphs = list(dict.fromkeys(cell["graph"] for cell in cells))
    rows = []
    for op in dict.fromkeys(cell["op"] for cell in cells):
        own = [cell for cell in cells if cell["op"] == op]
        by_graph = [[cell["ratio"] for cell in own if cell["graph"] == graph] for graph in graphs]
        over_pyg = [cell["ratio_pyg"] for cell in own if cell["ratio_pyg"] is not None]
        rows.append([op, *map(_spread, by_graph), _spread(over_pyg)])
    where = f"{results['machine']}; commit {results['commit']}; `{results['command']}`"
    table = _table(["op", *graphs, "over PyG"], rows)
    return f"{link}: {where}\n\n{table}\n\n{_losses(cells)}"


def _spread(ratios: list[float]) -> str:
    """Return the geometric mean of ratios, and the smallest and the largest."""
    if not ratios:
        return "-"
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _losses(cells: list[dict[str, Any]]) -> str:
    """Return the cells in which a peer is faster."""
    lost = [cell for cell in cells if cell["ratio"] < 1]
    mean = _spread([cell["ratio"] for cell in cells]).partition(" ")[0]
    said = f"{len(cells)} cells, geometric mean {mean}; a peer is faster in {len(lost)}"
    items = [
        f"- {cell['op']}, {cell['graph']}, width {cell['width']}, {cell['dtype']}, "
        f"{cell['direction']}: {cell['ratio']:.2f} of {cell['best_peer']}'s speed"
        for cell in sorted(lost, key=lambda cell: cell["ratio"])
    ]
    return "\n".join([f"{said}{':' if lost else '.'}", *([""] if lost else []), *items])


def models() -> str:
    """Return a row per model and graph: times, ratios and peaks of memory."""
    file = ROOT / "bench" / "results" / "pyg" / "models.json"
    results: dict[str, Any] = json.loads(file.read_text())
    rows = []
    for row in results["rows"]:
        plain, ours = row["results"]["pyg"], row["results"]["gnnkern"]
        times = f"{plain['median_ms']:.0f} / {ours['median_ms']:.0f}"
        peaks = f"{plain['peak_mb']:.0f} / {ours['peak_mb']:.0f}"
        new = f"{row['ratio_new_edges']:.2f}"
        rows.append([row["model"], row["graph"], times, f"{row['ratio']:.2f}", new, peaks])
    head = ["model", "graph", "PyG / gnnkern, ms", "ratio", "ratio, new edges", "peak, MB"]
    mean = _spread([row["ratio"] for row in results["rows"]])
    where = "; ".join(line for line in results["header"] if not line.startswith("graph "))
    return f"{_table(head, rows)}\n\nRatios: {mean}. {where}."


def excerpt(path: str, first: str | None = None, last: str | None = None) -> str:
    """Return a part of a file as a code block.

    Args:
        path: The file, from the root of the project.
        first: How the first line begins; None takes the whole file.
        last: How the last line begins; None ends before the next empty line.
    """
    file = ROOT / path
    lines = file.read_text().rstrip("\n").splitlines()
    if first is not None:
        begin = _find(path, lines, first, 0)
        end = _end(path, lines, begin, last)
        lines = dedent("\n".join(lines[begin:end])).splitlines()
    language = _LANGUAGES.get(file.suffix, "")
    return "\n".join([f"```{language}", *lines, "```"])


def _find(path: str, lines: list[str], start: str, begin: int) -> int:
    for number in range(begin, len(lines)):
        if lines[number].lstrip().startswith(start):
            return number
    raise ValueError(f"docs: {path} has no line that starts with {start!r} where one is needed")


def _end(path: str, lines: list[str], begin: int, last: str | None) -> int:
    if last is not None:
        return _find(path, lines, last, begin) + 1
    end = begin
    while end < len(lines) and lines[end].strip():
        end += 1
    return end


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> int:
    """Write the generated parts; return 0."""
    for name in DOCUMENTS:
        path = ROOT / name
        old = path.read_text()
        new = render(old)
        if new != old:
            path.write_text(new)
            print(f"{name}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
