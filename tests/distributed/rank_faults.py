"""What ranks do until something breaks."""

import contextlib
import io
import itertools
import os
import resource
import signal
import warnings

import rank_training
import torch
import torch.distributed as dist

from gnnkern.cli import main
from gnnkern.distributed import checkpoint, waiting, watch
from gnnkern.distributed.exchange import HaloExchange
from gnnkern.distributed.packing import unpack
from gnnkern.distributed.watch import Watch


def train_until(rank, number, step, exchange):
    """A training in which one rank sends itself a signal in mid-epoch, before an exchange."""
    with Watch(every=0.2):
        made = rank_training.training(None, dist.get_world_size(), "gcn", "exact", 50)
        _break(HaloExchange, "start", rank, _before(step, exchange), lambda: _signal(number))
        made.train()


def _signal(number):
    os.kill(os.getpid(), number)


def _before(step, exchange):
    """Whether the next exchange is of that number in that step."""

    def now(_):
        counter = waiting._counter
        return counter.step == f"step {step}" and counter.numbers.get("exchange", 0) == exchange - 1

    return now


def _break(owner, name, rank, when, action):
    """Have one rank do something before a call of a function; by its number, `when` says which."""
    if dist.get_rank() != rank:
        return
    real, numbers = getattr(owner, name), itertools.count(1)

    def call(*arguments, **options):
        if when(next(numbers)):
            action()
        return real(*arguments, **options)

    setattr(owner, name, call)


def bad_features(rank):
    """One rank's features have a NaN that every rank has seen at the end of the step."""
    made = rank_training.training(None, dist.get_world_size(), "gcn", "hold:2", 5)
    made.step(0)
    before = [x.detach().clone() for x in made.net.parameters()]
    if dist.get_rank() == rank:
        made.x[:, 3] = float("nan")
    try:
        made.step(1)
    finally:
        assert all(map(torch.equal, before, made.net.parameters()))


def command(arguments, fault=None):
    """Run the command line: its exit code and what it said on standard error.

    Args:
        arguments: Of the command line.
        fault: (what, rank, at): what breaks on that rank, at that step or call.
    """
    if fault is not None:
        what, rank, at = fault
        faults = {
            "killed in mid-epoch": (HaloExchange, "start", _before(at, 2), _die),
            "killed in a checkpoint": (checkpoint, "entry_of", lambda number: number == at, _die),
            "full disk": (checkpoint.Checkpoints, "save", lambda number: number == at, _fill_disk),
        }
        owner, name, when, action = faults[what]
        _break(owner, name, rank, when, action)
    watch._EVERY = 0.2
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(arguments)
    return code, said.getvalue()


def _die():
    _signal(signal.SIGKILL)


def _fill_disk():
    """From now on, files of this process can hold next to nothing."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def state_of(place, ranks):
    """What is in a checkpoint, but for times: of all ranks together, and of each."""
    from torch.distributed import checkpoint as dcp

    reader = dcp.FileSystemReader(place)
    tensors = {
        name: torch.empty(of.size, dtype=of.properties.dtype)
        for name, of in reader.read_metadata().state_dict_metadata.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    state = {
        name: unpack(tensors, name) for name in ("shared", *(f"rank{k}" for k in range(ranks)))
    }
    del state["shared"]["epoch_seconds"]
    return state
