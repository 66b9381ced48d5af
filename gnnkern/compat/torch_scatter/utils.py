"""What torch_scatter does to an index before it is used."""

from gnnkern.compat._along import broadcast

__all__ = ["broadcast"]
