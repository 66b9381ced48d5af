"""Files whose name never stands for a part of them, and their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["check_entry", "entry_of", "file_digest", "sync_folder", "write_whole"]

_CHUNK = 1 << 22


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that its name never stands for a part of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Have the disk know the names in a folder."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def file_digest(path: Path) -> str:
    """BLAKE2b of a file, 16 bytes in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def entry_of(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its name, bytes and digest."""
    return {"name": path.name, "bytes": path.stat().st_size, "blake2b": file_digest(path)}


def check_entry(path: Path, entry: Mapping[str, Any], *, verify: bool = True) -> None:
    """Compare a file with its manifest's entry.

    Args:
        path: Of the file.
        entry: What `entry_of` said of it.
        verify: Whether to compare the digest, which reads the file.

    Raises:
        ValueError: the file is torn or was changed.
    """
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(f"{path}: {size} bytes, expected {entry['bytes']}: the file is torn")
    if verify and file_digest(path) != entry["blake2b"]:
        raise ValueError(f"{path}: the digest is not the manifest's: the file was changed")
