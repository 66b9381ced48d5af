"""A training in a process of its own, advanced a few epochs at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch

from gnnkern.backends import BackendUnavailable
from gnnkern.data import load
from gnnkern.progress import Epoch
from gnnkern.train import TrainResult, train_node_classifier, warm_up

_CHILD = "from gnnkern.measure import _child; _child()"

# Lines of a failed process's standard error that its error quotes.
_ERROR_LINES = 20

# What the child is told instead of the epoch to train up to.
_STOP = 0


class MeasuredTraining:
    """`train_node_classifier(source, model, **options)` in a fresh process, step by step.

    The process loads the data and trains one epoch of the same kind before anything is measured,
    so that code loaded on first use counts neither as time nor as memory. Between two calls of
    `advance` it waits without using the processor: several trainings can take turns, so that
    whatever else the machine does befalls them alike.

    Args:
        source: What `gnnkern.data.load` takes.
        model: "gcn", "sage" or "gat".
        options: Keyword arguments of `train_node_classifier` that JSON can hold.
    """

    def __init__(self, source: str, model: str = "gcn", **options: Any) -> None:
        self.source = source
        self.epoch: Epoch | None = None
        self.result: TrainResult | None = None
        # Closed on exit, like the process that writes to it.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        threads = torch.get_num_threads()
        self._send({"source": source, "model": model, "options": options, "threads": threads})

    def __enter__(self) -> MeasuredTraining:
        """Nothing more: the process runs already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def wait_until_ready(self) -> None:
        """Return when the data are loaded and the first epoch could start.

        Raises:
            ValueError: What the training rejects.
            RuntimeError: The process failed otherwise; the message ends with its last words.
        """
        self._receive("ready")

    def advance(self, epoch: int, on_epoch: Callable[[Epoch], object] | None = None) -> bool:
        """Train up to `epoch`, or to the end; return whether there is more to train."""
        self._send(epoch)
        self._receive("turn", "result", on_epoch=on_epoch)
        return self.result is None

    def stop(self) -> TrainResult:
        """Return the result, of the epochs so far if there is more to train."""
        if self.result is None:
            self._send(_STOP)
            self._receive("result")
        assert self.result is not None
        return self.result

    def _send(self, value: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _receive(self, *awaited: str, on_epoch: Callable[[Epoch], object] | None = None) -> None:
        """Take messages up to one of those awaited."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            kind, value = json.loads(line)
            if kind == "epoch":
                self.epoch = Epoch(*value)
                if on_epoch is not None:
                    on_epoch(self.epoch)
            elif kind == "result":
                self.result = TrainResult.from_dict(value)
            elif kind == "rejected":
                raise ValueError(value)
            if kind in awaited:
                return
        raise self._failure()

    def _failure(self) -> RuntimeError:
        code = self._process.wait()
        self._errors.seek(0)
        words = "".join(self._errors.readlines()[-_ERROR_LINES:]).strip() or "no message"
        return RuntimeError(f"training {self.source}: the process ended with {code}:\n{words}")


def _child() -> None:
    """Take orders from standard input; write epochs and the result as lines of JSON."""
    order = json.loads(sys.stdin.readline())
    torch.set_num_threads(order["threads"])
    model, options = order["model"], order["options"]
    try:
        data = load(order["source"])
        warm_up(data, model, **options)
        _say("ready", None)
        result = train_node_classifier(data, model, **options, progress=_Turns())
    except (ValueError, OSError, ImportError, BackendUnavailable) as error:
        _say("rejected", str(error))
        return
    _say("result", result.to_dict())


class _Turns:
    """Reports each epoch, and after the last of its turn waits for the next."""

    def __init__(self) -> None:
        self._last = self._next_turn()

    def __call__(self, epoch: Epoch) -> bool:
        _say("epoch", epoch)
        if epoch.epoch >= self._last and epoch.epoch < epoch.epochs:
            _say("turn", None)
            self._last = self._next_turn()
        return self._last == _STOP

    def _next_turn(self) -> int:
        return int(sys.stdin.readline() or _STOP)


def _say(kind: str, value: Any) -> None:
    print(json.dumps([kind, value]), flush=True)
