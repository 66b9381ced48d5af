"""Graphs over several processes: partitions, exchanges of halo rows, graphs that layers take."""

from gnnkern.distributed.checkpoint import Checkpoints
from gnnkern.distributed.cut import LocalPart, cut
from gnnkern.distributed.dropout import KeyedDropout
from gnnkern.distributed.exchange import HaloExchange, Traffic
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.distributed.multirate import Drift, multirate, propagate
from gnnkern.distributed.partition import Partition, partition
from gnnkern.distributed.plan import HaloPlan, PlanMismatch
from gnnkern.distributed.policies import Anneal, Exact, Hold, Policy, Schedule, parse_policy
from gnnkern.distributed.quality import Quality
from gnnkern.distributed.solver import solve_diffusion
from gnnkern.distributed.storage import Manifest, load_manifest, load_part, save_parts
from gnnkern.distributed.system import DiffusionSystem, NotConverged, Solver, SolveStats
from gnnkern.distributed.training import (
    NotFinite,
    PartTraining,
    Scores,
    share_weights,
    sum_gradients,
)
from gnnkern.distributed.watch import RankLost, Watch
from gnnkern.distributed.window import WindowedExchange

__all__ = [
    "Anneal",
    "Checkpoints",
    "DiffusionSystem",
    "Drift",
    "Exact",
    "HaloExchange",
    "HaloPlan",
    "Hierarchy",
    "Hold",
    "KeyedDropout",
    "LEVELS",
    "LocalPart",
    "Manifest",
    "NotConverged",
    "NotFinite",
    "PartTraining",
    "Partition",
    "PartitionedGraph",
    "PlanMismatch",
    "Policy",
    "Quality",
    "RankLost",
    "Schedule",
    "Scores",
    "SolveStats",
    "Solver",
    "Traffic",
    "Watch",
    "WindowedExchange",
    "cut",
    "load_manifest",
    "load_part",
    "multirate",
    "parse_policy",
    "partition",
    "propagate",
    "save_parts",
    "share_weights",
    "solve_diffusion",
    "sum_gradients",
]
