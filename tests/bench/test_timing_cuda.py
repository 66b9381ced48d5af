"""The clock of a GPU, with events that count instead."""

import torch

from gnnkern.bench.timing import time_in_turns
from gnnkern.bench.timing_cuda import DeviceClock


class Device:
    """Every call takes a millisecond and every flush ten; what happened is noted."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def event(self):
        return Event(self)

    def flush(self):
        self.log.append("flush")
        self.now += 10.0

    def run(self):
        self.log.append("run")
        self.now += 1.0


class Event:
    def __init__(self, device):
        self.device, self.at = device, None

    def record(self):
        self.at = self.device.now
        self.device.log.append("event")

    def synchronize(self):
        self.device.log.append("wait")

    def elapsed_time(self, end):
        return end.at - self.at


def clock_of(device):
    return DeviceClock(torch.device("cpu"), device.event, device.flush)


def test_the_cache_is_flushed_before_each_call_and_outside_of_its_time():
    device = Device()
    assert clock_of(device).seconds_of(device.run, calls=2) == 1e-3
    assert device.log == 2 * ["flush", "event", "run", "event", "wait"]


def test_calls_are_timed_one_by_one_in_thirty_rounds():
    device = Device()
    timing = time_in_turns({"run": device.run}, seconds=1.0, clock=clock_of(device))["run"]
    assert (timing.median, timing.rounds, timing.calls) == (1e-3, 30, 1)
    # Every call but the one in front of all rounds has events around it.
    assert device.log.count("run") == device.log.count("flush") + 1


def test_long_calls_are_not_estimated_again():
    device = Device()
    assert clock_of(device).calls_for(device.run, 1.0) == (1, 1.0)
    assert not device.log
    assert clock_of(device).calls_for(device.run, 1e-3) == (1, 1e-3)
