"""A training in a process of its own, so that its time and memory are its alone."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from gnnkern.backends import BackendUnavailable
from gnnkern.data import load
from gnnkern.progress import Epoch
from gnnkern.train import TrainResult, train_node_classifier, warm_up

_CHILD = "from gnnkern.measure import _child; _child()"


def measured_training(
    source: str,
    model: str = "gcn",
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    **options: Any,
) -> TrainResult:
    """Return what `train_node_classifier(source, model, **options)` returns in a fresh process.

    The process loads the data and trains one epoch of the same kind before anything is measured,
    so that code loaded on first use counts neither as time nor as memory.

    Args:
        source: What `gnnkern.data.load` takes.
        model: "gcn", "sage" or "gat".
        on_epoch: Called after each epoch.
        options: Keyword arguments of `train_node_classifier` that JSON can hold.

    Raises:
        ValueError: What the training rejects.
        RuntimeError: The process failed otherwise; the message ends with its error.
    """
    order = {
        "source": source,
        "model": model,
        "options": options,
        "threads": torch.get_num_threads(),
    }
    result: TrainResult | None = None
    rejected: str | None = None
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(order))
            child.stdin.close()
            for line in child.stdout:
                kind, value = json.loads(line)
                if kind == "epoch" and on_epoch is not None:
                    on_epoch(Epoch(*value))
                elif kind == "result":
                    result = TrainResult.from_dict(value)
                elif kind == "rejected":
                    rejected = value
        except BaseException:
            child.kill()
            raise
        code = child.wait()
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:] or ["no message"]
    if rejected is not None:
        raise ValueError(rejected)
    if result is None:
        raise RuntimeError(f"training {source}: the process ended with {code}: {last[0]}")
    return result


def _child() -> None:
    """Read what to train from standard input; write epochs and the result as lines of JSON."""
    order = json.load(sys.stdin)
    torch.set_num_threads(order["threads"])
    model, options = order["model"], order["options"]
    try:
        data = load(order["source"])
        warm_up(data, model, **options)
        result = train_node_classifier(
            data, model, **options, progress=lambda epoch: _say("epoch", epoch)
        )
    except (ValueError, OSError, ImportError, BackendUnavailable) as error:
        _say("rejected", str(error))
        return
    _say("result", result.to_dict())


def _say(kind: str, value: Any) -> None:
    print(json.dumps([kind, value]), flush=True)
