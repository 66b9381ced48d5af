"""Ranks that may be killed: forked, in no time, from a process that has imported everything."""

import contextlib
import datetime
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from multiprocessing import forkserver
from pathlib import Path

from ranks import ROOT, RankError

_PRELOADED = ["torch", "torch.distributed.checkpoint", "gnnkern.cli", "gnnkern.distributed"]
# Seconds for what should take a few.
PATIENCE = 120.0


def _context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    before = dict(os.environ)
    path = [str(ROOT), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


class Forked:
    """Processes that call a function once, with a process group, or alone where world is None."""

    def __init__(self, world, function, *arguments, timeout=PATIENCE):
        context = _context()
        self._folder = tempfile.TemporaryDirectory(prefix="gnnkern-forked-")
        store = str(Path(self._folder.name) / "store")
        self.processes, self._results = [], []
        for rank in range(world or 1):
            result, sender = context.Pipe(duplex=False)
            task = (sender, rank, world, store, timeout, function, arguments)
            process = context.Process(target=_run, args=task, daemon=True)
            process.start()
            sender.close()
            self.processes.append(process)
            self._results.append(result)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    def answers(self):
        """What each rank returned, or its error; None of one that was killed or is stopped."""
        deadline = time.monotonic() + PATIENCE
        waiting = dict(enumerate(self._results))
        found = [None] * len(waiting)
        while waiting and time.monotonic() < deadline:
            ready = multiprocessing.connection.wait(waiting.values(), timeout=0.5)
            for rank in [rank for rank, result in waiting.items() if result in ready]:
                with contextlib.suppress(EOFError):
                    right, value = waiting[rank].recv()
                    found[rank] = value if right else RankError(rank, *value)
                del waiting[rank]
            if all(_is_stopped(self.processes[rank].pid) for rank in waiting):
                break
        return found

    def values(self):
        """What each rank returned; the first error is raised."""
        found = self.answers()
        for each in found:
            if isinstance(each, RankError):
                raise each
        return found


def _is_stopped(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def _run(sender, rank, world, store, timeout, function, arguments):
    import torch
    import torch.distributed as dist

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if world is not None:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{store}",
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(seconds=timeout),
        )
    try:
        answer = (True, function(*arguments))
    except Exception as error:
        answer = (False, (type(error).__name__, str(error), traceback.format_exc()))
    sender.send(answer)
