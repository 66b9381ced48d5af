"""What the processes of the GPU command have in common."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch


def parse() -> argparse.Namespace:
    """The options that `stages` passes."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--device", required=True)
    add("--commit")
    add("--command", default="")
    add("--stage", default="")
    add("--seconds", type=float, default=float("inf"))
    return parser.parse_args()


def short_name(device: str) -> str:
    """What the files of a device begin with: "h200" of an NVIDIA H200, "cpu"."""
    if not device.startswith("cuda"):
        return device
    return model_of(torch.cuda.get_device_name(device))


def model_of(name: str) -> str:
    """The model in the name of a GPU: "h100" of "NVIDIA H100 80GB HBM3", "rtx4090"."""
    words: list[str] = [w for w in re.findall(r"[A-Za-z0-9]+", name) if w.lower() not in _MAKERS]
    for number, word in enumerate(words):
        if re.fullmatch(r"[A-Za-z]+\d+[A-Za-z]*", word):
            return word.lower()
        if word.isdigit() and number:
            return (words[number - 1] + word).lower()
    return "-".join(words).lower() or "gpu"


_MAKERS = ("nvidia", "amd", "geforce", "tesla")
