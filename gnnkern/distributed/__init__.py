"""Graphs over several processes: partitions, exchanges of halo rows, graphs that layers take."""

from gnnkern.distributed.cover import Cover
from gnnkern.distributed.cut import LocalPart, cut
from gnnkern.distributed.dropout import KeyedDropout
from gnnkern.distributed.exchange import HaloExchange, Traffic
from gnnkern.distributed.graph import PartitionedGraph
from gnnkern.distributed.hierarchy import LEVELS, Hierarchy
from gnnkern.distributed.multirate import Deviation, multirate, propagate
from gnnkern.distributed.partition import Partition, partition
from gnnkern.distributed.plan import HaloPlan, PlanMismatch
from gnnkern.distributed.policies import (
    Anneal,
    Drift,
    Exact,
    Hold,
    Periodic,
    Pipelined,
    Policy,
    Sampled,
    parse_policy,
)
from gnnkern.distributed.quality import Quality
from gnnkern.distributed.record import StepRecord, over_ranks, summary
from gnnkern.distributed.schedule import Schedule
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
from gnnkern.distributed.vertex_cover import with_covered_rows
from gnnkern.distributed.window import WindowedExchange
from gnnkern.distributed.wire import Wire

__all__ = [
    "Anneal",
    "Cover",
    "Deviation",
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
    "Periodic",
    "Pipelined",
    "PlanMismatch",
    "Policy",
    "Quality",
    "Sampled",
    "Schedule",
    "Scores",
    "SolveStats",
    "Solver",
    "StepRecord",
    "Traffic",
    "WindowedExchange",
    "Wire",
    "cut",
    "load_manifest",
    "load_part",
    "multirate",
    "over_ranks",
    "parse_policy",
    "partition",
    "propagate",
    "save_parts",
    "share_weights",
    "solve_diffusion",
    "sum_gradients",
    "summary",
    "with_covered_rows",
]
