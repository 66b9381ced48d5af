"""Two files of results: what is a change and what is noise."""

import json

import pytest

from gnnkern.bench.compare import compare, verdict
from gnnkern.bench.results import SCHEMA
from gnnkern.cli import main


def result(median, spread=0.02, rounds=9):
    half = median * spread / 2
    return {
        "median_ms": median,
        "quartiles_ms": [median - half, median + half],
        "rounds": rounds,
        "calls": 1,
        "peak_mb": 1.0,
        "relative_error": 1e-7,
    }


def cell(width, **results):
    return {
        "op": "spmm_sum",
        "graph": "g",
        "width": width,
        "dtype": "float32",
        "direction": "forward",
        "num_edges": 1_000_000,
        "results": results,
        "skipped": {},
        "failed": {},
        "best_peer": None,
        "ratio": None,
        "ratio_pyg": None,
    }


def report(*cells, **fields):
    return {
        "schema": SCHEMA,
        "header": [],
        "machine": "m",
        "threads": 2,
        "versions": {"torch": "2.13"},
        "finished": True,
        "cells": list(cells),
        "not_measured": [],
        **fields,
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (result(10), result(12), "slower"),
        (result(12), result(10), "faster"),
        (result(10), result(10.4), "noise"),  # below 5%
        (result(10, 0.3), result(12, 0.3), "noise"),  # 2 ms beside ranges of 3 and 3.6
        (result(10, 0.3), result(15, 0.2), "slower"),  # 5 ms beside ranges of 3 and 3
        (result(10, rounds=2), result(20), "noise"),
    ],
)
def test_verdicts(before, after, expected):
    assert verdict(before, after) == expected


def test_join_and_warnings():
    before = report(cell(8, gnnkern=result(10), pyg=result(20)), cell(16, gnnkern=result(5)))
    after = report(
        cell(8, gnnkern=result(20), pyg=result(20)),
        cell(32, gnnkern=result(5)),
        machine="other",
        versions={"torch": "2.14"},
        finished=False,
    )
    found = compare(before, after)
    assert {(c.cell[2], c.contender): c.verdict for c in found.changes} == {
        (8, "gnnkern"): "slower",
        (8, "pyg"): "noise",
    }
    assert found.only == (1, 1)
    assert [change.ratio for change in found.slower] == [0.5]
    said = " ".join(found.warnings)
    for word in ("machine differs", "version of torch differs: 2.13 before", "did not finish"):
        assert word in said
    assert "threads" not in said


@pytest.fixture
def files(tmp_path):
    def write(*reports):
        paths = [tmp_path / f"{number}.json" for number in range(len(reports))]
        for path, content in zip(paths, reports, strict=True):
            path.write_text(json.dumps(content))
        return [str(path) for path in paths]

    return write


def test_exit_codes_and_what_is_printed(capsys, files):
    before = report(cell(8, gnnkern=result(10), pyg=result(20)))
    slower = report(cell(8, gnnkern=result(20), pyg=result(20)))
    a, b = files(before, slower)
    assert main(["bench", "--compare", a, b]) == 0
    out = capsys.readouterr().out
    for word in ("slower", "0.50", "20.0 ms", "noise: medians differ", "geometric mean"):
        assert word in out
    assert main(["bench", "--compare", a, b, "--fail-on-slower"]) == 1
    assert main(["bench", "--compare", b, a, "--fail-on-slower"]) == 0
    assert main(["bench", "--compare", a, a, "--fail-on-slower"]) == 0


def test_a_slower_peer_is_no_failure(files):
    before = report(cell(8, gnnkern=result(10), pyg=result(20)))
    after = report(cell(8, gnnkern=result(10), pyg=result(40)))
    assert main(["bench", "--compare", *files(before, after), "--fail-on-slower"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "it has no list 'cells'"),
        ('{"schema": 9, "cells": []}', "schema must be 1 or 2, got 9"),
        ('{"cells": [{}]}', "a cell is incomplete"),
    ],
)
def test_no_file_of_results(capsys, tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert main(["bench", "--compare", str(path), str(path)]) == 2
    assert message in capsys.readouterr().err
