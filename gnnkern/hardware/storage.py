"""The measured machine on disk: one JSON file for each device and way of measuring it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnkern.hardware.machine import Machine

__all__ = ["load", "save"]

# Of what is measured and how: files of another format are measured again.
FORMAT = 1

_warned: set[Path] = set()


def load(directory: Path, identity: Mapping[str, Any]) -> Machine | None:
    """The machine that was measured; None: there is no such file, or it cannot be used."""
    try:
        stored = json.loads(_file(directory, identity).read_text())
        if stored["identity"] != _plain(identity):
            return None
        return Machine.from_dict(stored["machine"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def save(directory: Path, identity: Mapping[str, Any], machine: Machine) -> bool:
    """Replace the file in one step; where that is impossible, warn once and return False."""
    text = json.dumps({"identity": _plain(identity), "machine": machine.to_dict()}, indent=1)
    draft = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=directory, prefix="probe-", suffix=".part", delete=False
        ) as file:
            draft = file.name
            file.write(text + "\n")
        os.replace(draft, _file(directory, identity))
    except OSError as error:
        if draft is not None:
            with contextlib.suppress(OSError):
                os.unlink(draft)
        if directory not in _warned:
            _warned.add(directory)
            warnings.warn(
                f"gnnkern: the probe cannot be kept in {directory} ({error}); every process "
                "measures it anew",
                stacklevel=3,
            )
        return False
    return True


def _file(directory: Path, identity: Mapping[str, Any]) -> Path:
    key = hashlib.sha256(json.dumps(_plain(identity), sort_keys=True).encode()).hexdigest()
    return directory / f"probe-{identity['device']}-{key[:16]}.json"


def _plain(identity: Mapping[str, Any]) -> Any:
    """The identity as JSON gives it back."""
    return json.loads(json.dumps({"format": FORMAT, **identity}))
