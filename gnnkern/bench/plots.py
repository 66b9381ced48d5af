"""Pictures of results: one PNG per op and kind of picture.

Every figure of an op has a panel per graph and dtype (columns) and direction (rows), and the same
colour for the same contender everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from gnnkern.bench.harness import OURS
from gnnkern.bench.results import Report, Row, names, number, status, time_unit
from gnnkern.plots import new_figure

DPI = 110
_PANEL = (4.6, 3.1)  # inches
_MARGIN = (2.6, 1.0)  # inches, for the legend on the right and the title
_MOST_COLUMNS = 6

# By the first word of a contender's name: one hue for each library, from dark to light.
_HUES = {
    OURS: ("#0b4f8a",),
    "torch": ("#b35806", "#e08214", "#fdb863", "#d9b38c"),
    "pyg": ("#8e0152", "#c51b7d", "#de77ae"),
    "torch_scatter": ("#276419", "#7fbc41"),
    "torch_sparse": ("#7a4a9c",),
    "dgl": ("#4d4d4d",),
    "cusparse": ("#b8860b",),
}
_OTHER = ("#878787",)
_MARKERS = {OURS: "o", "torch": "s", "pyg": "^", "torch_scatter": "D", "torch_sparse": "v"}

# The least memory that is told apart: a page, in MB.
_PAGE_MB = 4096 / 1e6


class Picture(NamedTuple):
    """A file, what it shows and of which op."""

    path: Path
    title: str
    op: str


def need_matplotlib() -> None:
    """Raise before the work rather than after it.

    Raises:
        ImportError: There is no Matplotlib; the message says how to install it.
    """
    new_figure(1, 1.0, 1.0)


def draw_all(report: Report, folder: Path) -> list[Picture]:
    """Draw every picture that the results have points for."""
    pictures = []
    for op in dict.fromkeys(row["op"] for row in report["cells"]):
        rows = [row for row in report["cells"] if row["op"] == op]
        for kind, (title, draw, drawable) in _KINDS.items():
            if drawable(rows):
                path = folder / f"{kind}_{op}.png"
                pictures += [Picture(made, f"{op}: {title}", op) for made in draw(op, rows, path)]
    return pictures


# -- panels ----------------------------------------------------------------------------------------

Panel = Callable[[Any, list[Row]], None]


def _figures(op: str, title: str, rows: list[Row], panel: Panel, path: Path) -> list[Path]:
    """One panel per graph and dtype, and direction; as many files as the columns need."""
    paths = []
    columns = list(dict.fromkeys((row["graph"], row["dtype"]) for row in rows))
    for part, start in enumerate(range(0, len(columns), _MOST_COLUMNS)):
        shown = columns[start : start + _MOST_COLUMNS]
        target = path if part == 0 else path.with_stem(f"{path.stem}_{part + 1}")
        directions = list(dict.fromkeys(row["direction"] for row in rows))
        panels = {
            (column, direction): [
                row
                for row in rows
                if (row["graph"], row["dtype"]) == column and row["direction"] == direction
            ]
            for direction in directions
            for column in shown
        }
        titles = {place: f"{place[0][0]}, {place[0][1]}\n{place[1]}" for place in panels}
        _draw(f"{op}: {title}", titles, panels, len(shown), panel, target)
        paths.append(target)
    return paths


def _draw(
    title: str,
    titles: dict[Any, str],
    panels: dict[Any, list[Row]],
    columns: int,
    panel: Panel,
    path: Path,
) -> None:
    lines = -(-len(panels) // columns)
    width = columns * _PANEL[0] + _MARGIN[0]
    figure, axes = new_figure(columns, width, lines * _PANEL[1] + _MARGIN[1], lines)
    flat = [axis for line in axes for axis in line]
    handles: dict[str, Any] = {}
    for axis, (place, rows) in zip(flat, panels.items(), strict=False):
        axis.set_title(titles[place], fontsize=10)
        if rows:
            panel(axis, rows)
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    for axis in flat[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=12, fontweight="bold")
    # Long enough that dashes and dots can be told apart.
    figure.legend(
        handles.values(), handles.keys(), loc="outside right center", fontsize=9, handlelength=4
    )
    figure.savefig(path, dpi=DPI)


def _colours(contenders: Sequence[str]) -> dict[str, str]:
    used: dict[str, int] = {}
    colours = {}
    for name in contenders:
        library = name.split()[0]
        hues = _HUES.get(library, _OTHER)
        colours[name] = hues[used.get(library, 0) % len(hues)]
        used[library] = used.get(library, 0) + 1
    return colours


def _marker(name: str) -> str:
    return _MARKERS.get(name.split()[0], "P")


def _width_axis(axis: Any, rows: list[Row]) -> None:
    widths = sorted({row["width"] for row in rows})
    heads = rows[0]["op"] == "edge_softmax"
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [str(width) for width in widths])
    axis.minorticks_off()
    axis.set_xlabel("heads" if heads else "width (elements per row)")
    axis.margins(x=0.12)


def _log_ticks(axis: Any) -> None:
    """Plain numbers at 1, 2 and 5 of every decade; more of them in a narrow range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    steps: tuple[float, ...] = (1.0, 2.0, 5.0) if high / low < 500 else (1.0,)
    if high / low < 10:
        steps = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axis.yaxis.set_major_locator(LogLocator(subs=steps))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


# -- roofline --------------------------------------------------------------------------------------

_FLOORS = {
    "T_comp": ("every byte once, at copy speed", "-"),
    "T_gather": ("all gathers from memory", "--"),
    "T_cache": ("all gathers, from where the probe finds rows", ":"),
    "T_compute": ("arithmetic at the rate of matmul", "-."),
}


def _roofline(axis: Any, rows: list[Row]) -> None:
    rows = sorted(rows, key=lambda row: int(row["width"]))
    widths = [row["width"] for row in rows]
    moved = [(row["gathered_bytes"] or row["compulsory_bytes"]) / 1e6 for row in rows]  # MB
    for name, (label, style) in _FLOORS.items():
        rates = [_rate(m, row["floor_ms"].get(name)) for m, row in zip(moved, rows, strict=True)]
        if any(rates):
            axis.plot(widths, rates, style, color="black", marker="_", markersize=14, label=label)
    mine = [_rate(m, _median(row, OURS)) for m, row in zip(moved, rows, strict=True)]
    axis.plot(widths, mine, marker="o", color=_HUES[OURS][0], linewidth=2, label=OURS)
    best = [_rate(m, _median(row, row["best_peer"])) for m, row in zip(moved, rows, strict=True)]
    if any(best):
        axis.plot(widths, best, marker="s", color="#e08214", linewidth=1.5, label="best peer")
    axis.set_yscale("log")
    _width_axis(axis, rows)
    _log_ticks(axis)
    axis.set_ylabel("GB/s")
    axis.grid(alpha=0.3)


def _rate(megabytes: float, milliseconds: float | None) -> float | None:
    """GB/s, or nothing where there is no time."""
    return megabytes / milliseconds if milliseconds else None


def _median(row: Row, name: str | None) -> float | None:
    result = row["results"].get(name)
    return None if result is None else float(result["median_ms"])


# -- bars ------------------------------------------------------------------------------------------


def _bars(
    axis: Any, rows: list[Row], value: Callable[[Row, str], float | None], base: float = 0.0
) -> None:
    """Groups of bars that stand on `base`, one group per width; a note says who has none."""
    rows = sorted(rows, key=lambda row: int(row["width"]))
    everybody = names(rows)
    colours = _colours(everybody)
    measured = [n for n in everybody if any(value(row, n) is not None for row in rows)]
    thick = 0.8 / max(len(measured), 1)
    for position, name in enumerate(measured):
        places, heights = [], []
        for group, row in enumerate(rows):
            height = value(row, name)
            if height is not None:
                places.append(group - 0.4 + (position + 0.5) * thick)
                heights.append(height)
        rise = [height - base for height in heights]
        axis.bar(places, rise, thick, bottom=base, color=colours[name], label=name)
    axis.set_xticks(range(len(rows)), [str(row["width"]) for row in rows])
    axis.set_xlabel("heads" if rows[0]["op"] == "edge_softmax" else "width (elements per row)")
    axis.set_yscale("log")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    missing = {name: _why(rows, name) for name in everybody if name not in measured}
    if any(missing.values()):
        text = "no bar: " + ", ".join(f"{name} {why}" for name, why in missing.items() if why)
        axis.annotate(
            _wrapped(text),
            (0.01, 0.99),
            xycoords="axes fraction",
            va="top",
            fontsize=7,
            color="0.35",
        )


def _why(rows: list[Row], name: str) -> str:
    """In a word, or empty for one that has times."""
    return "/".join({status(row, name): None for row in rows if name not in row["results"]})


def _wrapped(text: str) -> str:
    return fill(text, 62)


def _speedup(axis: Any, rows: list[Row]) -> None:
    def ratio(row: Row, name: str) -> float | None:
        mine, other = _median(row, OURS), _median(row, name)
        return None if name == OURS or mine is None or other is None else other / mine

    _bars(axis, rows, ratio, base=1.0)
    axis.axhline(1, color=_HUES[OURS][0], linewidth=1.5, label=f"{OURS} = 1")
    _make_room(axis)
    _log_ticks(axis)
    axis.set_ylabel(f"time / {OURS}'s time")


def _memory(axis: Any, rows: list[Row]) -> None:
    def peak(row: Row, name: str) -> float | None:
        result = row["results"].get(name)
        return None if result is None else max(float(result["peak_mb"]), _PAGE_MB)

    _bars(axis, rows, peak)
    _make_room(axis)
    _log_ticks(axis)
    axis.set_ylabel("peak memory added, MB")


def _make_room(axis: Any) -> None:
    """Space for the note on who is missing, and below, so that the shortest bar is seen."""
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.3, high * (high / low) ** 0.3)


# -- scaling ---------------------------------------------------------------------------------------


def _scaling(axis: Any, rows: list[Row], field: str) -> None:
    rows = sorted(rows, key=lambda row: int(row[field]))
    everybody = names(rows)
    colours = _colours(everybody)
    unit, scale = time_unit(rows[-1])
    for name in everybody:
        points = [(row[field], _median(row, name)) for row in rows]
        points = [(x, time) for x, time in points if time is not None]
        if points:
            xs, times = zip(*points, strict=True)
            axis.plot(
                xs,
                [time * scale for time in times],
                marker=_marker(name),
                markersize=5,
                linewidth=2.2 if name == OURS else 1.2,
                color=colours[name],
                label=name,
            )
    axis.set_yscale("log")
    _log_ticks(axis)
    axis.set_ylabel(f"time, {unit} (median)")
    axis.grid(alpha=0.3)


def _scaling_width(axis: Any, rows: list[Row]) -> None:
    _scaling(axis, rows, "width")
    _width_axis(axis, rows)


def _scaling_edges(op: str, rows: list[Row], path: Path) -> list[Path]:
    """Panels by width rather than by graph."""

    def panel(axis: Any, rows: list[Row]) -> None:
        _scaling(axis, rows, "num_edges")
        axis.set_xscale("log")
        edges = sorted({row["num_edges"] for row in rows})
        axis.set_xticks(edges, [_thousands(count) for count in edges], rotation=30)
        axis.minorticks_off()
        axis.set_xlabel("edges")

    groups: dict[Any, list[Row]] = {}
    for row in rows:
        if row["num_edges"] is not None:
            groups.setdefault((row["direction"], row["width"], row["dtype"]), []).append(row)
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    order = sorted(groups, key=lambda place: directions.index(place[0]))
    groups = {place: groups[place] for place in order if len(_sizes(groups[place])) > 1}
    what = "heads" if op == "edge_softmax" else "width"
    titles = {p: f"{what} {p[1]}, {p[2]}\n{p[0]}" for p in groups}
    columns = min(len({place[1:] for place in groups}), _MOST_COLUMNS)
    _draw(f"{op}: time by number of edges", titles, groups, columns, panel, path)
    return [path]


def _thousands(count: int) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{number(count / size).removesuffix('.0').removesuffix('.00')}{letter}"
    return str(count)


def _sizes(rows: list[Row]) -> set[int]:
    return {row["num_edges"] for row in rows if row["num_edges"] is not None}


# -- kinds -----------------------------------------------------------------------------------------


Draw = Callable[[str, list[Row], Path], list[Path]]


def _by_panel(title: str, panel: Panel) -> Draw:
    return lambda op, rows, path: _figures(op, title, rows, panel, path)


def _always(rows: list[Row]) -> bool:
    return any(row["results"] for row in rows)


def _has_peers(rows: list[Row]) -> bool:
    return any(row.get("ratio") is not None for row in rows)


def _has_widths(rows: list[Row]) -> bool:
    return len({row["width"] for row in rows}) > 1


def _has_sizes(rows: list[Row]) -> bool:
    places: dict[Any, set[int]] = {}
    for row in rows:
        place = (row["direction"], row["width"], row["dtype"])
        places.setdefault(place, set()).update(_sizes([row]))
    return any(len(sizes) > 1 for sizes in places.values())


_ROOFLINE, _SPEEDUP = "achieved bandwidth and its floors", "time of the peers"
_MEMORY, _WIDTHS = "peak memory added by a call", "time by width"

# By the beginning of the file's name: title, how it is drawn, whether there is anything to draw.
_KINDS: dict[str, tuple[str, Draw, Callable[[list[Row]], bool]]] = {
    "roofline": (_ROOFLINE, _by_panel(_ROOFLINE, _roofline), _always),
    "speedup": (_SPEEDUP, _by_panel(_SPEEDUP, _speedup), _has_peers),
    "memory": (_MEMORY, _by_panel(_MEMORY, _memory), _always),
    "widths": (_WIDTHS, _by_panel(_WIDTHS, _scaling_width), _has_widths),
    "edges": ("time by number of edges", _scaling_edges, _has_sizes),
}
