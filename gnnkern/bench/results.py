"""The file of a measurement: JSON, rewritten after every cell.

`schema` is 2; files without it are of version 1, and `read` fills in what those lack.

| field | what it holds |
|---|---|
| `schema` | version of this layout |
| `header` | lines for people: machine, peers, memory, graphs, what is timed |
| `command`, `commit`, `machine`, `started` | how, of what, where and when (UTC) |
| `versions` | by package its version, or "dgl is absent: ..." |
| `threads`, `rounds`, `backend` | of every contender; most rounds of one; gnnkern's as asked for |
| `probe` | what `gnnkern.hardware.probe` measured of the machine |
| `graphs` | by graph `num_nodes`, `num_edges`, `max_in_degree`, `max_out_degree`, `order` |
| `cells` | what was measured, below |
| `not_measured` | `op`, `graph`, `width`, `dtype` and the `reason` |
| `finished` | whether the run came to its end |

A cell is one op on one graph, in one direction. It is known by `op`, `graph`, `width`, `dtype` and
`direction`, and a contender in it by its name besides.

| field | what it holds |
|---|---|
| `heads`, `num_nodes`, `num_edges` | of the problem |
| `backend`, `contenders` | where gnnkern ran, and everybody in the order of columns |
| `compulsory_bytes`, `gathered_bytes` | of the cost model |
| `floor_ms` | the least times `T_comp`, `T_gather`, `T_cache`, `T_compute` |
| `results` | by contender `median_ms`, `quartiles_ms` [2], `rounds`, `calls` per round, |
| | `peak_mb` and `relative_error` against float64 |
| `skipped`, `failed` | by contender the reason; an absent one has "... is absent: ..." |
| `best_peer`, `ratio` | the fastest peer or null, and its time by gnnkern's |
| `ratio_pyg` | the time of PyG's default path by gnnkern's |
| `gb_per_s`, `of_copy`, `floor_over_t`, `edges_per_s` | of gnnkern |

Ratios and what follows `gnnkern`'s time are null or missing where there is none to compare.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnnkern.bench.harness import OURS
from gnnkern.bench.peers import PYG_DEFAULT

SCHEMA = 2

# A cell, as it is decoded from the file.
Row = dict[str, Any]
Report = dict[str, Any]
Key = tuple[str, str, int, str, str]

_GRAPH_FIELDS = ("num_nodes", "num_edges")


def key(row: Row) -> Key:
    """What a cell is known by."""
    return row["op"], row["graph"], row["width"], row["dtype"], row["direction"]


def read(path: Path) -> Report:
    """Read a file of either version.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no file of measurements, or of a version that is not known.
    """
    try:
        report = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from None
    if not isinstance(report, dict) or not isinstance(report.get("cells"), list):
        raise ValueError(f"{path}: not a file of `gnnkern bench --json`: it has no list 'cells'")
    version = report.get("schema", 1)
    if version not in (1, SCHEMA):
        raise ValueError(f"{path}: schema must be 1 or {SCHEMA}, got {version!r}")
    try:
        return _upgrade(report) if version == 1 else report
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a cell is incomplete: {error!r}") from None


def write(path: Path, report: Report) -> None:
    """Replace the file in one step: an interrupted run keeps every cell made so far.

    A folder that is not there is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(draft, path)


def _upgrade(report: Report) -> Report:
    """Version 1 named ops otherwise and left counts and the ratio to PyG to be derived."""
    for row in report["cells"]:
        mine = row["results"].get(OURS)
        row.setdefault("num_nodes", None)
        row["num_edges"] = None
        if mine is not None:
            row["num_edges"] = round(row["edges_per_s"] * mine["median_ms"] / 1e3)
        for result in row["results"].values():
            result.setdefault("calls", 1)
        row["ratio"] = row.get("ratio")
        row["ratio_pyg"] = ratio_to(row, PYG_DEFAULT)
    for entry in report.setdefault("not_measured", []):
        entry.setdefault("op", entry.pop("kind", None))
        entry.setdefault("dtype", "float32")
    lines = report.get("graphs", [])
    report["graphs"] = {line.partition(":")[0]: {"description": line} for line in lines}
    report.setdefault("versions", {})
    report["schema"] = SCHEMA
    return report


def ratio_to(row: Row, name: str) -> float | None:
    """The time of a contender by gnnkern's; None where one of them has none."""
    results = row["results"]
    if OURS not in results or name not in results:
        return None
    ratio: float = results[name]["median_ms"] / results[OURS]["median_ms"]
    return ratio


def names(rows: Sequence[Row]) -> list[str]:
    """Every contender of some cells, gnnkern first, the others in the order of their first cell."""
    found: dict[str, None] = {OURS: None}
    for row in rows:
        order = row.get("contenders", [*row["results"], *row["skipped"], *row["failed"]])
        found.update(dict.fromkeys(order))
    return list(found)


def status(row: Row, name: str) -> str:
    """One word for a contender that has no time in a cell."""
    if name in row["failed"]:
        return "failed"
    reason = row["skipped"].get(name)
    if reason is None:
        return "-"
    return "absent" if " is absent: " in reason else "no memory" if "needs about" in reason else "-"


def reasons(report: Report) -> list[str]:
    """Why something was not measured, each reason once with where it holds."""
    where: dict[str, list[str]] = {}
    for row in report["cells"]:
        place = f"{row['op']} {row['graph']} {row['width']} {row['dtype']} {row['direction']}"
        for kind in ("skipped", "failed"):
            for name, reason in row[kind].items():
                said = reason if kind == "skipped" else f"failed: {reason}"
                where.setdefault(f"{name}: {said}", []).append(place)
    for entry in report["not_measured"]:
        place = f"{entry['op']} {entry['graph']} {entry['width']} {entry['dtype']}"
        where.setdefault(entry["reason"], []).append(place)
    return [
        f"{reason} ({places[0]})" if len(places) == 1 else f"{reason} ({len(places)} cells)"
        for reason, places in where.items()
    ]


# -- summary ---------------------------------------------------------------------------------------


def summary(report: Report) -> list[str]:
    """How many cells were compared, how many lost, and the geometric means."""
    rows = report["cells"]
    best = [row["ratio"] for row in rows if row.get("ratio") is not None]
    default = [row["ratio_pyg"] for row in rows if row.get("ratio_pyg") is not None]
    lost = sum(ratio < 1 for ratio in best)
    lines = [f"{_count(len(best))} compared with a peer, {lost} of them below 1.0"]
    if best:
        lines.append(f"geometric mean over the best peer: {geometric_mean(best):.2f}")
    if default:
        lines.append(
            f"geometric mean over PyG's default path: {geometric_mean(default):.2f} "
            f"({_count(len(default))}, {sum(ratio < 1 for ratio in default)} below 1.0)"
        )
    return lines


def losses(report: Report) -> list[Row]:
    """The cells in which a peer was faster, the worst first."""
    lost = [row for row in report["cells"] if row.get("ratio") is not None and row["ratio"] < 1]
    return sorted(lost, key=lambda row: float(row["ratio"]))


def loss_line(row: Row) -> str:
    """A cell in which a peer was faster."""
    place = f"{row['op']} {row['graph']} width {row['width']} {row['dtype']} {row['direction']}"
    return f"{place}: {row['ratio']:.2f} of {row['best_peer']}'s speed"


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean of ratios under which twice as fast and half as fast cancel."""
    product = 1.0
    for ratio in ratios:
        product *= ratio ** (1 / len(ratios))
    return product


def _count(cells: int) -> str:
    return f"{cells} cell" if cells == 1 else f"{cells} cells"


# -- numbers ---------------------------------------------------------------------------------------

# Below this many edges a call costs about as much as its work: times are told in microseconds.
SMALL_EDGES = 50_000


def time_unit(row: Row) -> tuple[str, float]:
    """The unit of a cell's times, and what milliseconds are multiplied by."""
    edges = row.get("num_edges")
    return ("µs", 1e3) if edges is not None and edges < SMALL_EDGES else ("ms", 1.0)


def number(value: float) -> str:
    """Three figures."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
