"""Several processes with a process group, which run functions of a module and answer."""

import os
import pickle
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# Seconds after which ranks are taken for hung; of the process group as well.
TIMEOUT = 600.0


class RankError(Exception):
    """What a rank raised."""

    def __init__(self, rank, kind, message, text):
        super().__init__(f"rank {rank}: {kind}: {message}\n{text}")
        self.kind, self.message = kind, message


class Ranks:
    """`world` processes; `run` has the first few of them call a function."""

    def __init__(self, world, timeout=TIMEOUT):
        self.world, self.timeout = world, timeout
        self._number = 0
        self._folder = tempfile.TemporaryDirectory(prefix="gnnkern-ranks-")
        path = os.pathsep.join([str(ROOT), str(HERE), str(HERE.parent)])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        store = Path(self._folder.name) / "store"
        self.processes = [
            subprocess.Popen(
                [sys.executable, HERE / "worker.py", str(rank), str(world), store, str(timeout)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            for rank in range(world)
        ]

    def send(self, function, *arguments, world=None, size=None):
        """Have the first `world` ranks call a function of (group of `size`, *arguments)."""
        world = world or self.world
        self._number += 1
        place = (function.__module__, function.__name__)
        task = pickle.dumps((self._number, *place, size or world, arguments))
        for process in self.processes[:world]:
            process.stdin.write(task)
            process.stdin.flush()

    def answers(self, world=None):
        """What each rank returned, or its error."""
        deadline = time.monotonic() + self.timeout
        return [self._answer(rank, deadline) for rank in range(world or self.world)]

    def run(self, function, *arguments, world=None):
        """The results by rank; the first error is raised."""
        self.send(function, *arguments, world=world)
        answers = self.answers(world)
        for answer in answers:
            if isinstance(answer, RankError):
                raise answer
        return answers

    def _answer(self, rank, deadline):
        stream = self.processes[rank].stdout
        ready = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            self.kill()
            raise TimeoutError(f"rank {rank} did not answer within {self.timeout} s")
        try:
            number, right, value = pickle.load(stream)
            # Answers to a test that did not wait for them; what follows may be read already.
            while number != self._number:
                number, right, value = pickle.load(stream)
        except EOFError:
            self.kill()
            raise RuntimeError(f"rank {rank} ended") from None
        return value if right else RankError(rank, *value)

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        self._folder.cleanup()
