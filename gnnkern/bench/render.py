"""Results on the terminal: a table per op, graph and dtype, then the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gnnkern.bench.harness import OURS
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

_NAME_WIDTH = 24
_COLUMN_WIDTH = 11
_SHORT = {"forward + backward": "+ backward", "forward + backward of x and weight": "+ both"}


def print_report(report: Report, console: Console) -> None:
    """Print every table, what was lost and what was not measured."""
    for line in report["header"]:
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)
    rows = report["cells"]
    for group in _groups(rows, lambda row: (row["op"], row["graph"], row["dtype"])):
        for part in _parts(group, console.width):
            console.print()
            console.print(_table(part))
    console.print()
    for line in summary(report):
        console.print(line, highlight=False, markup=False)
    lost = losses(report)
    if lost:
        console.print("\nslower than the best peer:", highlight=False)
    for row in lost:
        console.print(f"  {loss_line(row)}", highlight=False, markup=False)
    left_out = reasons(report)
    if left_out:
        console.print("\nnot measured:", highlight=False)
    for line in left_out:
        console.print(f"  {line}", highlight=False, markup=False)


def _groups(rows: Sequence[Row], group_of: Callable[[Row], tuple[object, ...]]) -> list[list[Row]]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row), []).append(row)
    return list(groups.values())


def _parts(group: list[Row], width: int) -> list[list[Row]]:
    """The columns of one table each: by direction, together where they fit."""
    fitting = max((width - _NAME_WIDTH) // _COLUMN_WIDTH, 1)
    if len(group) <= fitting:
        return [sorted(group, key=_direction_first(group))]
    columns = _groups(group, lambda row: (row["direction"],))
    return [
        part[start : start + fitting] for part in columns for start in range(0, len(part), fitting)
    ]


def _direction_first(group: list[Row]) -> Callable[[Row], int]:
    order = list(dict.fromkeys(row["direction"] for row in group))
    return lambda row: order.index(row["direction"])


def _table(rows: list[Row]) -> Table:
    first = rows[0]
    unit, scale = time_unit(first)
    title = f"{first['op']} on {first['graph']}, {first['dtype']}, median {unit}"
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    if len(directions) == 1:
        title += f", {directions[0]}"
    table = Table(
        title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    table.add_column("width", no_wrap=True)
    for row in rows:
        heading = str(row["width"])
        if len(directions) > 1:
            heading += f"\n{_SHORT.get(row['direction'], row['direction'])}"
        table.add_column(heading, justify="right", no_wrap=True)
    for name in names(rows):
        table.add_row(name, *(_time(row, name, scale) for row in rows), style=_style(name))
    table.add_section()
    for label, value in _LINES.items():
        table.add_row(label, *map(value, rows))
    return table


def _style(name: str) -> str | None:
    return "bold" if name == OURS else None


def _time(row: Row, name: str, scale: float) -> str:
    if name not in row["results"]:
        return status(row, name)
    return number(row["results"][name]["median_ms"] * scale)


def _quartiles(row: Row) -> str:
    if OURS not in row["results"]:
        return "-"
    scale = time_unit(row)[1]
    low, high = row["results"][OURS]["quartiles_ms"]
    return f"{number(low * scale)}-{number(high * scale)}"


def _ratio(field: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        ratio = row.get(field)
        if ratio is None:
            return "-"
        return f"[bold red]{ratio:.2f}[/]" if ratio < 1 else f"{ratio:.2f}"

    return text


def _measure(field: str) -> Callable[[Row], str]:
    return lambda row: number(row[field]) if row.get(field) is not None else "-"


def _peak(row: Row) -> str:
    mine = row["results"].get(OURS)
    return "-" if mine is None else number(mine["peak_mb"])


_LINES: dict[str, Callable[[Row], str]] = {
    "gnnkern's quartiles": _quartiles,
    "best peer / gnnkern": _ratio("ratio"),
    "pyg / gnnkern": _ratio("ratio_pyg"),
    "gnnkern GB/s": _measure("gb_per_s"),
    "floor / gnnkern": _measure("floor_over_t"),
    "gnnkern peak MB": _peak,
}
