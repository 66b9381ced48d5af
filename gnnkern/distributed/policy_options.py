"""What the options of a training say about policies: periods by link, tolerances, records."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnnkern.distributed.adaptive import Adaptive, Recorded
from gnnkern.distributed.hierarchy import Hierarchy
from gnnkern.distributed.link_schedule import LinkSchedule, by_link, parse_period
from gnnkern.distributed.policies import Exact, Policy, parse_policy
from gnnkern.distributed.schedule import Schedule

__all__ = ["PolicyChoice", "add_policy_options", "decisions_of"]

# Of decisions that hold for all links.
_ALL = "all"


def add_policy_options(ranks: argparse._ArgumentGroup) -> None:
    """Add the options."""
    ranks.add_argument(
        "--policy",
        default="exact",
        metavar="NAME",
        help="which rows travel in which epochs: exact, hold:4, anneal:8,4,2,1, drift:0.05, "
        "pipelined or sampled:0.5; default: exact",
    )
    ranks.add_argument(
        "--period",
        metavar="K",
        help="epochs from one exchange to the next at most, by kind of link: host:2,network:8, or "
        "a number for all; default: as the policy says",
    )
    ranks.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="in place of a policy: exchange as seldom as hides communication, while rows move by "
        "at most this share of their norm between exchanges",
    )
    ranks.add_argument(
        "--replay",
        type=Path,
        metavar="FILE",
        help="in place of a policy: exchange as the training with --tolerance did whose --json "
        "this is",
    )


class PolicyChoice:
    """The policy of a command line; what is wrong with it shows before anything is loaded.

    Raises:
        ValueError: an option is out of range, or several say what the policy is.
        OSError: the file to replay cannot be read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.period = None if options.period is None else parse_period(options.period)
        self.policy = parse_policy(options.policy)
        self._recorded: dict[str, Policy] = {}
        self.words: str = options.policy
        given = [options.tolerance is not None, options.replay is not None]
        if sum([*given, self.policy != Exact()]) > 1:
            raise ValueError("train: give one of --policy, --tolerance and --replay")
        if options.tolerance is not None:
            self.policy = Adaptive(options.tolerance)
            self.words = f"tolerance {options.tolerance:g}"
        if options.replay is not None:
            if self.period is not None:
                raise ValueError("train: --replay has its own periods, got --period")
            self._recorded = _read(options.replay)
            self.words = f"as {options.replay.name}"
        if options.period is not None:
            self.words += f", period {options.period}"

    def on(self, hierarchy: Hierarchy) -> Policy | Mapping[str, Policy]:
        """For ranks of a hierarchy; says on standard error which periods have no link."""
        if self._recorded:
            return self._recorded.get(_ALL, self._recorded)
        if self.period is None:
            return self.policy
        given = set(self.period) if isinstance(self.period, Mapping) else set()
        absent = given - set(hierarchy.levels)
        if absent:
            print(
                f"gnnkern train: no period of {', '.join(sorted(absent))}: there is no such link "
                f"between {hierarchy.size} ranks on {hierarchy.hosts} hosts (--hosts)",
                file=sys.stderr,
            )
        return by_link(self.policy, self.period, hierarchy)


def decisions_of(schedule: Schedule | LinkSchedule) -> dict[str, list[dict[str, Any]]]:
    """What adaptive policies decided, by kind of link or for all; nothing of others."""
    policies: Mapping[str, Policy] = (
        schedule.policies if isinstance(schedule, LinkSchedule) else {_ALL: schedule.policy}
    )
    return {
        level: policy.log() for level, policy in policies.items() if isinstance(policy, Adaptive)
    }


def _read(path: Path) -> dict[str, Policy]:
    """The recorded policies of a file of results, by kind of link or for all."""
    try:
        decisions = json.loads(path.read_text())[0]["settings"]["decisions"]
        policies: dict[str, Policy] = {
            level: Recorded.from_log(log) for level, log in decisions.items()
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        policies = {}
    if not policies:
        raise ValueError(f"train: {path} has no decisions; it must be --json of a --tolerance")
    return policies
