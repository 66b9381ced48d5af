"""The documents say what is so: generated parts are current, names exist, examples run."""

import importlib.util
import json
import pkgutil
import re
from pathlib import Path

import pytest

import gnnkern

ROOT = Path(__file__).parent.parent
PAGES = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES)
README = (ROOT / "README.md").read_text()

FOLDERS = r"\.ci|bench|csrc|docs|examples|gnnkern|tests"
PATH = re.compile(rf"(?:{FOLDERS})/[\w./-]*|[\w-]+\.(?:md|txt|toml|py)|Makefile|LICENSE")


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def without_code_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def code_spans(text):
    return re.findall(r"`([^`\n]+)`", without_code_blocks(text))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/layers.md"])
def test_generated_parts_are_current(generate, document):
    text = (ROOT / document).read_text()
    assert generate.render(text) == text, f"{document} is out of date: python docs/generate.py"


def test_the_table_of_ops_has_every_op(generate):
    table = generate.ops_table()
    for op, implementations in gnnkern.ops.implementations().items():
        (row,) = (line for line in table.splitlines() if line.startswith(f"| [`{op}`]"))
        assert all(f"`{implementation.backend}`" in row for implementation in implementations)


def test_results_become_tables(generate, tmp_path, monkeypatch):
    folder = tmp_path / "bench" / "results" / "cpu"
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "RESULTS", folder)
    assert "make bench" in generate.benchmarks()
    folder.mkdir(parents=True)
    results = {
        "machine": "one core",
        "commit": "abc",
        "command": "measure",
        "cells": [
            _cell("spmm", "forward", 2.0, 2.468, 4.0),
            _cell("spmm", "forward + backward", 2.0, 1.0, 16.0),
        ],
    }
    (folder / "core.json").write_text(json.dumps(results))
    assert generate.benchmarks().splitlines() == [
        "[core.json](bench/results/cpu/core.json): one core; commit abc; `measure`",
        "",
        "| op | tiny | over PyG |",
        "| --- | --- | --- |",
        "| spmm | 0.79 (0.50 to 1.23) | 4.00 (2.00 to 8.00) |",
        "",
        "2 cells, geometric mean 0.79; a peer is faster in 1:",
        "",
        "- spmm, tiny, width 64, float32, forward + backward: 0.50 of torch's speed",
    ]


def _cell(op, direction, ours, peer, pyg):
    return {
        "op": op,
        "graph": "tiny",
        "width": 64,
        "direction": direction,
        "best_peer": "torch",
        "dtype": "float32",
        "ratio": peer / ours,
        "ratio_pyg": pyg / ours,
        "results": {"gnnkern": {"median_ms": ours}, "torch": {"median_ms": peer}},
    }


def test_a_missing_line_is_named(generate):
    with pytest.raises(ValueError, match=r"setup\.py has no line that starts with 'no such line'"):
        generate.excerpt("setup.py", "no such line")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document):
    text = (ROOT / document).read_text()
    names = {name for name in code_spans(text) if PATH.fullmatch(name)}
    links = re.findall(r"\]\(([^)#]+)\)", without_code_blocks(text))
    names |= {link for link in links if "://" not in link}
    # From the root, from the page, or in a package that the page is about.
    packages = {name.replace(".", "/") for name in re.findall(r"`(gnnkern(?:\.\w+)+)`", text)}
    places = [ROOT, (ROOT / document).parent, *(ROOT / package for package in packages)]
    missing = sorted(n for n in names if not any((place / n).exists() for place in places))
    assert not missing, f"{document} names files that do not exist: {', '.join(missing)}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document):
    text = (ROOT / document).read_text()
    makefile = (ROOT / "Makefile").read_text()
    code = "\n".join([*code_spans(text), *code_blocks(text, "sh")])
    for words in re.findall(r"\bmake((?: [a-z-]+)+)", code):
        for target in words.split():
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_names_exist(document):
    text = (ROOT / document).read_text()
    for name in re.findall(r"`(gnnkern(?:\.\w+)+)", text):
        # Raises where there is no such module or attribute.
        pkgutil.resolve_name(name)


@pytest.mark.parametrize(
    "document, example",
    [
        (document, example)
        for document in ("README.md", *PAGES)
        for example in code_blocks((ROOT / document).read_text(), "python")
        # Ranks are started by the tests of gnnkern.distributed.
        if document != "docs/distributed.md"
    ],
)
def test_examples_run(document, example):
    exec(compile(example, document, "exec"), {"__name__": "example"})


def test_the_table_of_layers_has_every_layer(generate):
    table = generate.layers_table() + generate.aggregations_table()
    # docs/diffusion.md is about the last two.
    helpers = {"Aggregation", "Messages", "Relations", "Diffusion", "PersonalizedPropagation"}
    classes = {name for name in gnnkern.nn.__all__ if isinstance(getattr(gnnkern.nn, name), type)}
    assert {name for name in classes if f"| `{name}(" in table} == classes - helpers


def test_every_environment_variable_is_explained():
    sources = [ROOT / "gnnkern" / "settings.py", ROOT / "setup.py"]
    read = {name for source in sources for name in re.findall(r"GNNKERN_\w+", source.read_text())}
    assert set(re.findall(r"^\| `(GNNKERN_\w+)`", README, re.MULTILINE)) == read


def test_the_changelog_is_about_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{gnnkern.__version__}]" in changelog
