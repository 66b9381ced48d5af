"""Graphs over several processes: partitions, exchanges of halo rows, graphs that layers take."""

from gnnkern.distributed.cut import LocalPart, cut
from gnnkern.distributed.exchange import HaloExchange, Traffic
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.distributed.partition import Partition, partition
from gnnkern.distributed.plan import HaloPlan, PlanMismatch
from gnnkern.distributed.quality import Quality
from gnnkern.distributed.solver import solve_diffusion
from gnnkern.distributed.storage import Manifest, load_manifest, load_part, save_parts
from gnnkern.distributed.system import DiffusionSystem, NotConverged, Solver, SolveStats

__all__ = [
    "LEVELS",
    "DiffusionSystem",
    "HaloExchange",
    "HaloPlan",
    "Hierarchy",
    "LocalPart",
    "Manifest",
    "NotConverged",
    "Partition",
    "PartitionedGraph",
    "PlanMismatch",
    "Quality",
    "SolveStats",
    "Solver",
    "Traffic",
    "cut",
    "load_manifest",
    "load_part",
    "partition",
    "save_parts",
    "solve_diffusion",
]
