"""pyg-lib's ops under its names: `ops`, and a `sampler` that says that it is none.

See `gnnkern.compat.install` for models that import pyg_lib itself.
"""

from gnnkern.compat.pyg_lib import ops, sampler

# Of the release whose ops these are.
__version__ = "0.6.0"

__all__ = ["ops", "sampler"]
