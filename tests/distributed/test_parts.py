"""What ranks hold of a graph, in memory and on disk."""

import errno
import json
import os

import pytest
import torch
from rank_checks import NAMES, normal, parts_of, whole_graph
from spoiling import delete, flip, truncate

import gnnkern
from gnnkern.cli import main
from gnnkern.distributed import cut, load_manifest, load_part, partition, save_parts
from gnnkern.distributed.files import file_digest

each_name = pytest.mark.parametrize("name", NAMES)
each_division = pytest.mark.parametrize("how", ["metis", "random", "lopsided"])


def edges_of(graph):
    """(source, destination) of every edge, in the caller's order."""
    return list(zip(*graph.edge_index.tolist(), strict=True))


@each_name
@each_division
def test_every_edge_is_in_one_part_and_ghosts_are_outside_sources(name, how):
    graph = whole_graph(name)
    made = parts_of(graph, 3, how)
    parts = list(cut(graph, made, reverse=True))
    assert sorted(torch.cat([part.owned for part in parts]).tolist()) == list(range(graph.num_dst))
    for direction, whole in (("forward", graph), ("backward", graph.reverse)):
        edges = edges_of(whole)
        seen = []
        for part in parts:
            mine = getattr(part, direction)
            ids = torch.cat([part.owned, mine.ghosts])
            rows = range(len(part.owned))
            outside = set()
            for row in rows:
                span = slice(int(mine.indptr[row]), int(mine.indptr[row + 1]))
                node = int(part.owned[row])
                columns = ids[mine.indices[span]].tolist()
                # The order of neighbours is that of the whole graph.
                begin, end = int(whole.indptr[node]), int(whole.indptr[node + 1])
                assert columns == whole.indices[begin:end].tolist()
                for column, edge in zip(columns, mine.edge_id[span].tolist(), strict=True):
                    assert edges[edge] == (column, node)
                    seen.append(edge)
                others = {u for u in columns if made.part[u] != part.rank}
                outside |= others
                first, last = mine.interior
                assert (not others) == (first <= row < last)
            assert sorted(mine.ghosts.tolist()) == sorted(outside)
            owners = made.part[mine.ghosts]
            assert torch.equal(owners, owners.sort().values)
            assert mine.ghost_splits.tolist() == torch.bincount(owners, minlength=3).tolist()
            assert int(mine.ghost_splits[part.rank]) == int(mine.send_splits[part.rank]) == 0
        assert sorted(seen) == list(range(graph.num_edges))


@each_name
@each_division
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_is_sent_is_what_is_expected(name, how, direction):
    graph = whole_graph(name)
    parts = list(cut(graph, parts_of(graph, 3, how), reverse=True))
    sent, expected = {}, {}
    for part in parts:
        mine = getattr(part, direction)
        rows = torch.split(part.owned[mine.send_rows], mine.send_splits.tolist())
        ghosts = torch.split(mine.ghosts, mine.ghost_splits.tolist())
        for other in range(3):
            sent[part.rank, other] = rows[other].tolist()
            expected[other, part.rank] = ghosts[other].tolist()
    assert sent == expected


@pytest.fixture
def folder(tmp_path):
    graph = whole_graph("communities")
    made = partition(graph, 3, "fennel")
    tensors = {"x": normal(graph.num_dst, 4)}
    weight = {"weight": normal(graph.num_edges)}
    parts = cut(graph, made, reverse=True)
    save_parts(tmp_path, parts, made, node_tensors=tensors, edge_tensors=weight, extra={"a": [1]})
    return tmp_path


def test_parts_come_back_from_the_disk(folder):
    graph = whole_graph("communities")
    made = partition(graph, 3, "fennel")
    manifest = load_manifest(folder)
    assert manifest.num_parts == 3 and manifest.extra == {"a": [1]}
    assert manifest.quality == json.loads(json.dumps(made.quality.to_dict()))
    for part in cut(graph, made, reverse=True):
        again, rows = load_part(folder, part.rank)
        assert torch.equal(rows["x"], normal(graph.num_dst, 4)[part.owned])
        assert torch.equal(rows["weight"], normal(graph.num_edges)[part.forward.edge_id])
        assert torch.equal(again.owned, part.owned) and again.fingerprint == part.fingerprint
        for direction in ("forward", "backward"):
            mine, other = getattr(part, direction), getattr(again, direction)
            for field, value in mine.__dict__.items():
                found = getattr(other, field)
                assert torch.equal(found, value) if torch.is_tensor(value) else found == value


def test_rows_may_come_from_a_function(tmp_path):
    graph = whole_graph("chain")
    made = partition(graph, 2, "fennel")
    asked = []

    def rows(ids):
        asked.append(ids)
        return {"x": ids[:, None].float()}

    save_parts(tmp_path, cut(graph, made), made, node_tensors=rows)
    for rank in (0, 1):
        part, read = load_part(tmp_path, rank)
        assert torch.equal(part.owned, asked[rank]) and part.backward is None
        assert torch.equal(read["x"], part.owned[:, None].float())


def spoil_swap(path):
    path.write_bytes(path.with_name("part-00002.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "the file is torn"),
        (flip, "the file was changed"),
        (spoil_swap, "the file (is torn|was changed)"),
        (delete, "the part of rank 1 is missing"),
    ],
)
def test_a_spoilt_part_is_refused_and_others_are_not(folder, spoil, message):
    spoil(folder / "part-00001.safetensors")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_part(folder, 1)
    load_part(folder, 0)


def test_a_part_of_another_partition_is_refused(folder):
    path = folder / "part-00001.safetensors"
    content = json.loads((folder / "manifest.json").read_text())
    graph = whole_graph("communities")
    other = partition(graph, 3, "fennel", seed=5)
    save_parts(folder / "other", cut(graph, other), other)
    path.write_bytes((folder / "other" / path.name).read_bytes())
    content["files"][1] |= {
        "bytes": path.stat().st_size,
        "blake2b": file_digest(path),
    }
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="of partition .* expected rank 1 of"):
        load_part(folder, 1)
    path.write_bytes(b"nothing of the kind, but as long as it says")
    content["files"][1]["bytes"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not a part of a partition"):
        load_part(folder, 1, verify=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99, this gnnkern reads version 1"),
        ({"format": "cookbook"}, "not the manifest of a partition"),
        ({"surprise": 1}, "not the manifest of a partition"),
    ],
)
def test_a_manifest_that_is_none(folder, change, message):
    content = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_manifest(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not the manifest of a partition"):
        load_part(folder, 0)


def test_rank_out_of_range(folder):
    with pytest.raises(ValueError, match=r"rank must be in \[0, 3\) .* got 3"):
        load_part(folder, 3)


def test_a_full_disk_leaves_no_partition(folder, monkeypatch):
    """What was there is no partition either: half of its files may be new."""
    graph = whole_graph("communities")
    made = partition(graph, 3, "random")
    real, calls = os.fsync, []

    def fsync(file):
        calls.append(file)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save_parts(folder, cut(graph, made), made)
    with pytest.raises(FileNotFoundError, match="there is no manifest"):
        load_part(folder, 0)
    assert not list(folder.glob(".*.tmp"))


def test_the_command_writes_what_ranks_read(tmp_path, capsys):
    out = tmp_path / "parts"
    command = ["partition", "--data", "grid:12,12", "--parts", "4", "--out", str(out)]
    assert main([*command, "--hierarchy", "2,2", "--balance", "nodes+edges", "--cover"]) == 0
    printed = capsys.readouterr().out
    covered = load_manifest(out).quality
    assert f"{covered['cover']['network']:,} under a cover" in printed
    assert 0 < covered["cover"]["network"] <= covered["ghosts"]["network"]
    assert "144 nodes in 4 parts, metis" in printed and "rows per exchange" in printed
    manifest = load_manifest(out)
    assert manifest.hierarchy == (2, 2, 1) and manifest.extra["data"].startswith("grid")
    nodes = [load_part(out, rank)[0].owned for rank in range(4)]
    assert sorted(torch.cat(nodes).tolist()) == list(range(144))
    assert main([*command, "--method", "fennel", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"] == load_manifest(out).quality["nodes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "0"], "parts must be >= 1"),
        (["--parts", "4", "--hierarchy", "3,2"], "product is parts=4"),
        (["--parts", "2", "--data", "nowhere.npz"], "no such file"),
    ],
)
def test_the_command_says_what_is_wrong(options, message, tmp_path, capsys):
    assert main(["partition", "--data", "grid:3,3", "--out", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_one_process_needs_no_process_group():
    graph = whole_graph("communities")
    mine = gnnkern.distributed.PartitionedGraph.from_graph(graph, partition(graph, 1))
    x = normal(graph.num_dst, 3)
    assert torch.equal(gnnkern.spmm(mine, x[mine.owned]), gnnkern.spmm(graph, x)[mine.owned])
    alone = gnnkern.distributed.PartitionedGraph.from_graph(graph, partition(graph, 2, "random"))
    with pytest.raises(ValueError, match="the plan is of 2 ranks, but"):
        gnnkern.spmm(alone, x[alone.owned])
    for wrong in ("csr", "reverse"):
        with pytest.raises((TypeError, ValueError), match="PartitionedGraph: "):
            getattr(alone, wrong)
    with pytest.raises(TypeError, match="reverse_csr has columns of other ranks"):
        alone.reverse_csr()
