"""Results as one HTML page that needs nothing beside it: pictures inside, tables that sort."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from gnnkern.bench.harness import OURS
from gnnkern.bench.plots import Picture, draw_all
from gnnkern.bench.results import (
    Report,
    Row,
    loss_line,
    losses,
    names,
    number,
    reasons,
    status,
    summary,
    time_unit,
)

PAGE = "index.html"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 1280px; margin: 2em auto; padding: 0 1em; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
img { max-width: 100%; height: auto; display: block; margin: 1em 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; white-space: nowrap; text-align: left; }
th { position: sticky; top: 0; background: #f2f4f7; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0b4f8a; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.lost { color: #b00020; font-weight: 600; }
li { margin: 0.15em 0; }
"""

# Sorts by the column's numbers where a cell has one, by its text elsewhere; a second click turns
# the order round. Without a script the tables are as they come.
_SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyOf = (row) => {
      const cell = row.cells[column], value = cell.dataset.value;
      return value === undefined ? [1, cell.textContent] : [0, Number(value)];
    };
    const rows = [...body.rows].sort((a, b) => {
      const [kindA, x] = keyOf(a), [kindB, y] = keyOf(b);
      if (kindA !== kindB) return kindA - kindB;
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    });
    body.append(...rows);
  });
}
"""


def write_report(report: Report, folder: Path) -> Path:
    """Draw every picture into a folder and write the page; return its path.

    Raises:
        ImportError: There is no Matplotlib; the message says how to install it.
        ValueError: The results hold no cell.
    """
    if not report["cells"]:
        raise ValueError("bench: a report needs at least one cell, got none")
    folder.mkdir(exist_ok=True)
    page = folder / PAGE
    page.write_text(render_page(report, draw_all(report, folder)), encoding="utf-8")
    return page


def render_page(report: Report, pictures: Sequence[Picture]) -> str:
    """The page as text."""
    ops = list(dict.fromkeys(row["op"] for row in report["cells"]))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>gnnkern bench: {escape(', '.join(ops))}</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>gnnkern bench</h1>",
        _items(report["header"]),
        "<h2>Summary</h2>",
        _items(summary(report)),
        *_section("Slower than the best peer", [loss_line(row) for row in losses(report)]),
        "<h2>Cells</h2>",
        "<p>Medians. A click on a heading sorts. Ratios are times of others by gnnkern's: below 1 "
        "the other was faster. floor / T: the least time that this machine could take, by "
        "gnnkern's.</p>",
        _table(_CELL_HEADINGS, [_cell(row) for row in report["cells"]]),
        "<h2>Pictures</h2>",
        f"<p>{' · '.join(_link(op) for op in ops)}</p>",
    ]
    for op in ops:
        parts.append(f'<h2 id="{escape(op)}">{escape(op)}</h2>')
        parts += [_image(picture) for picture in pictures if picture.op == op]
        rows = [row for row in report["cells"] if row["op"] == op]
        parts.append(_table(_CONTENDER_HEADINGS, _contenders(rows)))
    # Last and folded: there may be a line per cell and peer.
    parts += _section("Not measured", reasons(report), folded=True)
    parts.append(f"<script>{_SCRIPT}</script></body></html>")
    return "\n".join(parts) + "\n"


def _items(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _section(title: str, lines: list[str], *, folded: bool = False) -> list[str]:
    if not lines:
        return []
    if folded:
        items = _items(lines)
        return [f"<details><summary>{title}: {len(lines)} lines</summary>", items, "</details>"]
    return [f"<h3>{title}</h3>", _items(lines)]


def _link(op: str) -> str:
    return f'<a href="#{escape(op)}">{escape(op)}</a>'


def _image(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    return f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'


# -- tables ----------------------------------------------------------------------------------------

_PLACE = ["op", "graph", "width", "dtype", "direction"]
_CELL_HEADINGS = [
    *_PLACE,
    "gnnkern",
    "best peer",
    "its time",
    "best peer / gnnkern",
    "pyg / gnnkern",
    "GB/s",
    "floor / T",
    "edges/s",
    "peak MB",
]
_CONTENDER_HEADINGS = [
    *_PLACE[1:],
    "contender",
    "median",
    "quartiles",
    "rounds × calls",
    "by gnnkern's",
    "peak MB",
    "relative error",
]


def _table(headings: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th><button type="button">{escape(h)}</button></th>' for h in headings)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _text(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _number(value: float | None, text: str | None = None, *, lost: bool = False) -> str:
    """A cell that sorts by its value."""
    if value is None:
        return _text("-")
    shown = number(value) if text is None else text
    mark = " lost" if lost else ""
    return f'<td class="number{mark}" data-value="{value:.6g}">{escape(shown)}</td>'


def _time(row: Row, name: str | None) -> str:
    if name is None:
        return _text("-")
    if name not in row["results"]:
        return _text(status(row, name))
    unit, scale = time_unit(row)
    median = row["results"][name]["median_ms"]
    return _number(median, f"{number(median * scale)} {unit}")


def _ratio(ratio: float | None) -> str:
    return _number(ratio, None if ratio is None else f"{ratio:.2f}", lost=(ratio or 1) < 1)


def _place(row: Row) -> list[str]:
    return [
        _text(row["graph"]),
        _number(row["width"], str(row["width"])),
        _text(row["dtype"]),
        _text(row["direction"]),
    ]


def _cell(row: Row) -> list[str]:
    mine = row["results"].get(OURS)
    return [
        _text(row["op"]),
        *_place(row),
        _time(row, OURS),
        _text(row["best_peer"] or "-"),
        _time(row, row["best_peer"]),
        _ratio(row.get("ratio")),
        _ratio(row.get("ratio_pyg")),
        _number(row.get("gb_per_s")),
        _number(row.get("floor_over_t")),
        _number(row.get("edges_per_s"), f"{row.get('edges_per_s', 0):.3g}"),
        _number(None if mine is None else mine["peak_mb"]),
    ]


def _contenders(rows: list[Row]) -> list[list[str]]:
    everybody = names(rows)
    return [_contender(row, name) for row in rows for name in everybody]


def _contender(row: Row, name: str) -> list[str]:
    result = row["results"].get(name)
    if result is None:
        reason = row["failed"].get(name) or row["skipped"].get(name)
        word = status(row, name)
        said = word if reason is None or word == "absent" else f"{word}: {reason}"
        return [*_place(row), _text(name), _text(said), *[_text("-")] * 5]
    unit, scale = time_unit(row)
    low, high = (number(quartile * scale) for quartile in result["quartiles_ms"])
    mine = row["results"].get(OURS)
    ratio = None if mine is None or name == OURS else result["median_ms"] / mine["median_ms"]
    return [
        *_place(row),
        _text(name),
        _time(row, name),
        _text(f"{low}-{high} {unit}"),
        _number(result["rounds"], f"{result['rounds']} × {result['calls']}"),
        _ratio(ratio),
        _number(result["peak_mb"]),
        _number(result["relative_error"], f"{result['relative_error']:.1e}"),
    ]
