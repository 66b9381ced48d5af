"""A rank: joins a process group, then runs the functions it is sent until its input ends."""

import datetime
import importlib
import os
import pickle
import sys
import traceback


def main():
    rank, world, store, seconds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    # Results go where the standard output was; what libraries print goes to the standard error.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=float(seconds))
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timeout
    )
    groups = {size: dist.new_group(list(range(size))) for size in range(1, world)}
    groups[world] = dist.group.WORLD
    while True:
        try:
            number, module, name, size, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            function = getattr(importlib.import_module(module), name)
            answer = (True, function(groups[size], *arguments))
        except Exception as error:
            answer = (False, (type(error).__name__, str(error), traceback.format_exc()))
        pickle.dump((number, *answer), results)
        results.flush()


if __name__ == "__main__":
    main()
