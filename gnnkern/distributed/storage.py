"""Partitions on disk: a manifest, and a file per part that a rank reads alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnkern.distributed.cut import Edges, LocalPart, narrow
from gnnkern.distributed.files import check_entry, entry_of, write_whole
from gnnkern.distributed.hierarchy import Hierarchy
from gnnkern.distributed.partition import Partition

__all__ = ["FORMAT_VERSION", "Manifest", "load_manifest", "load_part", "save_parts"]

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_FORMAT = "gnnkern partition"
# Tensors of nodes and edges are stored under a prefix, so that no name meets one of the graph's.
_NODE = "node."
_EDGE = "edge."

# Of `Edges`, what stays as narrow as it is stored.
_PER_EDGE = ("indptr", "indices", "edge_id")

Tensors = Mapping[str, Tensor]

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Manifest:
    """What the folder of a partition says about itself.

    Attributes:
        num_nodes: N.
        num_edges: E.
        hierarchy: Of the ranks.
        method: Of the partition.
        seed: Of the method.
        fingerprint: Of the partition.
        quality: The report of the partition.
        files: Name, bytes, digest, nodes, edges and ghosts of each part's file, by rank.
        extra: What the writer wanted to add.
    """

    num_nodes: int
    num_edges: int
    hierarchy: Hierarchy
    method: str
    seed: int
    fingerprint: int
    quality: dict[str, Any]
    files: list[dict[str, Any]]
    extra: dict[str, Any]

    @property
    def num_parts(self) -> int:
        """P."""
        return self.hierarchy.size


def save_parts(
    folder: StrPath,
    parts: Iterable[LocalPart],
    partition: Partition,
    *,
    node_tensors: Tensors | Callable[[Tensor], Tensors] | None = None,
    edge_tensors: Tensors | Callable[[Tensor], Tensors] | None = None,
    extra: dict[str, Any] | None = None,
    report: Callable[[int, int, str], None] | None = None,
) -> Manifest:
    """Write a partition: `part-00000.safetensors` for each rank, then `manifest.json`.

    Every file is written beside its name, flushed to the disk and renamed: a name stands for a
    whole file. The manifest is taken away first and written last: a folder without one holds no
    partition. One part is in memory at a time.

    Args:
        folder: Made where it is not there.
        parts: `cut(graph, partition)`.
        partition: The partition.
        node_tensors: Tensors [N, ...] of which each part keeps its rows, such as features and
            labels; or a function from global ids [n] to such rows, where the whole does not fit.
        edge_tensors: Tensors [E, ...] in the order of the graph's edges, likewise; each part keeps
            the rows of its in-edges.
        extra: More for the manifest, as JSON has it.
        report: Called with (parts done, all parts, what comes).

    Raises:
        OSError: the folder cannot be written; what was written is no partition then.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    (place / _MANIFEST).unlink(missing_ok=True)
    files: list[dict[str, Any]] = []
    for part in parts:
        name = f"part-{part.rank:05d}.safetensors"
        if report is not None:
            report(part.rank, partition.num_parts, name)
        tensors = _tensors_of(part)
        tensors |= _rows_of(_NODE, node_tensors, part.owned)
        tensors |= _rows_of(_EDGE, edge_tensors, part.forward.edge_id)
        write_whole(place / name, lambda path, tensors=tensors: _save_tensors(tensors, path))  # type: ignore[misc]
        files.append(
            entry_of(place / name)
            | {
                "nodes": len(part.owned),
                "edges": len(part.forward.indices),
                "ghosts": len(part.forward.ghosts),
            }
        )
    manifest = Manifest(
        partition.num_nodes,
        partition.quality.num_edges,
        partition.hierarchy,
        partition.method,
        partition.seed,
        partition.fingerprint,
        partition.quality.to_dict(),
        files,
        dict(extra or {}),
    )
    content = {"format": _FORMAT, "version": FORMAT_VERSION, **manifest.__dict__}
    text = json.dumps(content, indent=1)
    write_whole(place / _MANIFEST, lambda path: path.write_text(text + "\n"))
    return manifest


def load_manifest(folder: StrPath) -> Manifest:
    """Read what a folder says about its partition.

    Raises:
        FileNotFoundError: there is no manifest: the folder holds no whole partition.
        ValueError: it is no manifest, or of another version.
    """
    path = Path(folder) / _MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no manifest, so the folder holds no partition")
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != _FORMAT:
            raise KeyError("format")
        version = content.pop("version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path}: version {version}, this gnnkern reads version {FORMAT_VERSION}"
            )
        content["hierarchy"] = Hierarchy(*content["hierarchy"])
        return Manifest(**content)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not the manifest of a partition ({error!r})") from error


def load_part(
    folder: StrPath, rank: int, *, verify: bool = True
) -> tuple[LocalPart, dict[str, Tensor]]:
    """Read one rank's part, and its rows of the tensors of nodes and edges; no other is opened.

    Args:
        folder: What `save_parts` wrote.
        rank: Whose part.
        verify: Whether to compare the file's digest, which reads it once more.

    Raises:
        FileNotFoundError: the manifest or the part's file is missing.
        ValueError: the file is torn, changed or of another partition; the rank is out of range.
    """
    manifest = load_manifest(folder)
    if not 0 <= rank < manifest.num_parts:
        raise ValueError(
            f"load_part: rank must be in [0, {manifest.num_parts}) for {folder}, got {rank}"
        )
    entry = manifest.files[rank]
    path = Path(folder) / entry["name"]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the part of rank {rank} is missing")
    check_entry(path, entry, verify=verify)
    tensors = _load_tensors(path)
    header = tensors.pop("header").tolist()
    if header[:2] != [rank, manifest.fingerprint]:
        raise ValueError(
            f"{path}: the part of rank {header[0]} of partition {header[1]:x}, expected rank "
            f"{rank} of {manifest.fingerprint:x}"
        )
    rows = {
        name.removeprefix(prefix): x
        for prefix in (_NODE, _EDGE)
        for name, x in tensors.items()
        if name.startswith(prefix)
    }
    part = LocalPart(
        rank,
        manifest.hierarchy,
        manifest.num_nodes,
        manifest.fingerprint,
        tensors["owned"].long(),
        _edges_from(tensors, "forward"),
        _edges_from(tensors, "backward") if "backward.indptr" in tensors else None,
    )
    return part, rows


def _tensors_of(part: LocalPart) -> dict[str, Tensor]:
    tensors = {
        "header": torch.tensor([part.rank, part.fingerprint]),
        "owned": narrow(part.owned, part.num_nodes),
    }
    for name, edges in (("forward", part.forward), ("backward", part.backward)):
        if edges is None:
            continue
        for key, value in edges.__dict__.items():
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
            most = int(tensor.max()) if tensor.numel() else 0
            tensors[f"{name}.{key}"] = narrow(tensor, most)
    return tensors


def _edges_from(tensors: Mapping[str, Tensor], name: str) -> Edges:
    fields = {key: tensors[f"{name}.{key}"] for key in Edges.__dataclass_fields__}
    fields |= {key: x.long() for key, x in fields.items() if key not in _PER_EDGE}
    first, last = fields.pop("interior").tolist()
    return Edges(**fields, interior=(first, last))


def _rows_of(
    prefix: str, tensors: Tensors | Callable[[Tensor], Tensors] | None, ids: Tensor
) -> dict[str, Tensor]:
    if tensors is None:
        return {}
    rows = tensors(ids) if callable(tensors) else {name: x[ids] for name, x in tensors.items()}
    return {prefix + name: x.contiguous() for name, x in rows.items()}


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            f"partitions on disk need safetensors: pip install gnnkern[partition] ({error})"
        ) from error
    return safetensors.torch


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    _safetensors().save_file(dict(tensors), str(path))


def _load_tensors(path: Path) -> dict[str, Tensor]:
    library = _safetensors()
    try:
        return dict(library.load_file(str(path)))
    except Exception as error:
        raise ValueError(f"{path}: not a part of a partition ({error})") from error
