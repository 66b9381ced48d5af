"""pyg-lib under its names: its `ops`, and the neighbour samplers of its `sampler`.

See `gnnkern.compat.install` for models that import pyg_lib itself.
"""

from gnnkern.compat.pyg_lib import ops, sampler

# Of the release whose ops these are.
__version__ = "0.6.0"

__all__ = ["ops", "sampler"]
