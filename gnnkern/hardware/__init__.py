"""What this machine can do, measured, and what an op must therefore cost."""

from gnnkern.hardware.machine import Machine

__all__ = ["Machine"]
