"""Results as markdown, with pictures beside them; and the marks, of everything in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.gpu.child import parse, short_name
from bench.gpu.marks import marks_table
from bench.gpu.runner import replace_file
from gnnkern.bench.report import markdown
from gnnkern.bench.results import (
    Report,
    Row,
    loss_line,
    losses,
    names,
    number,
    ratio_to,
    read,
    reasons,
    status,
    summary,
    time_unit,
)

# Files in the same folder that are no results.
_OTHER_FILES = ("machine", "summary")


def reports_in(folder: Path, device: str, stage: str = "") -> Iterator[tuple[Path, Report]]:
    """The results of a stage, or of all."""
    start = f"{short_name(device)}_{stage}"
    for path in sorted(folder.glob(f"{start}*.json")):
        if path.stem not in _OTHER_FILES and not path.stem.endswith("_probe"):
            yield path, read(path)


def tables(report: Report) -> list[str]:
    """The lines of a page: where and how, a table per cell, losses, and what was not measured."""
    lines = [f"- {line}" for line in report["header"]]
    if not report["finished"]:
        lines.append("- the run was stopped before its end")
    for row in report["cells"]:
        lines += ["", f"### {_title(row)}", "", *markdown(_lines_of(row))]
    lines += ["", "## In all", "", *(f"- {line}" for line in summary(report))]
    lost = losses(report)
    lines += ["", "## Slower than the best peer", ""]
    lines += [f"- {loss_line(row)}" for row in lost] or ["nothing"]
    lines += ["", "## Not measured", ""]
    lines += [f"- {reason}" for reason in reasons(report)] or ["nothing"]
    return lines


def _title(row: Row) -> str:
    return (
        f"{row['op']} on {row['graph']}, width {row['width']}, {row['dtype']}, {row['direction']}"
    )


def _lines_of(row: Row) -> list[dict[str, str | None]]:
    unit, scale = time_unit(row)
    lines = []
    for name in names([row]):
        result = row["results"].get(name)
        ratio = ratio_to(row, name)
        line: dict[str, str | None] = {"": name}
        if result is None:
            line[f"median {unit}"] = status(row, name)
        else:
            low, high = result["quartiles_ms"]
            line |= {
                f"median {unit}": number(result["median_ms"] * scale),
                "quartiles": f"{number(low * scale)}-{number(high * scale)}",
                "rounds": str(result["rounds"]),
                "peak MB": number(result["peak_mb"]),
                "error": f"{result['relative_error']:.1g}",
                "by gnnkern's": None if ratio is None else f"{ratio:.2f}",
            }
        lines.append(line)
    mine = [("GB/s", "gb_per_s"), ("of copy", "of_copy"), ("floor / T", "floor_over_t")]
    told = [f"{label} {number(row[key])}" for label, key in mine if row.get(key) is not None]
    # The columns of a table are those of its first line.
    whole = max(lines, key=len)
    lines = [{key: line.get(key) for key in whole} for line in lines]
    return [*lines, {**dict.fromkeys(whole), "": f"gnnkern: {', '.join(told)}"}] if told else lines


def _draw(report: Report, folder: Path) -> str:
    """The page with pictures; what stands in its way, as one line."""
    try:
        from gnnkern.bench.report_page import write_report

        return f"pictures: {write_report(report, folder)}"
    except (ImportError, ValueError) as reason:
        return f"no pictures: {reason}"


def _main() -> None:
    options = parse()
    for path, report in reports_in(options.out, options.device, options.stage):
        title = f"# {path.stem}\n\n"
        replace_file(path.with_suffix(".md"), title + "\n".join(tables(report)) + "\n")
        print(f"{path.with_suffix('.md').name}; {_draw(report, path.with_suffix(''))}")
    everything = [report for _, report in reports_in(options.out, options.device)]
    # What an interpreter takes says nothing about kernels.
    judged = everything if options.device.startswith("cuda") else []
    replace_file(options.out / "marks.md", "\n".join(marks_table(judged)) + "\n")
    print("marks.md")


if __name__ == "__main__":
    _main()
