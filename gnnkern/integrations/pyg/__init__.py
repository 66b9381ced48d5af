"""PyG's models on gnnkern's kernels, without a change to them: `gnnkern.patch_pyg()`."""

from gnnkern.integrations.pyg.accelerating import accelerate, decelerate
from gnnkern.integrations.pyg.patching import patch_pyg, patched_pyg, unpatch_pyg
from gnnkern.integrations.pyg.report import PygReport, pyg_report

__all__ = [
    "PygReport",
    "accelerate",
    "decelerate",
    "patch_pyg",
    "patched_pyg",
    "pyg_report",
    "unpatch_pyg",
]
