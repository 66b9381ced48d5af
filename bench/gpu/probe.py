"""What the device can do: copies, random rows by size, products, small calls."""

from __future__ import annotations

import json

from bench.gpu.child import parse, short_name
from bench.gpu.runner import replace_file
from gnnkern.hardware import probe


def _main() -> None:
    options = parse()
    machine = probe(options.device, refresh=True)
    path = options.out / f"{short_name(options.device)}_probe.json"
    replace_file(path, json.dumps(machine.to_dict(), indent=1) + "\n")
    print(machine.summary())


if __name__ == "__main__":
    _main()
