"""Trainings whose period follows from what they see."""

import torch.distributed as dist
from rank_training import training

from gnnkern.distributed import Adaptive
from gnnkern.distributed.schedule import Schedule


def steps_of(made, epochs):
    """Which steps exchange."""
    fresh = []
    for step in range(epochs):
        made.losses.append(made.step(step))
        fresh.append(made.schedule.is_fresh)
    return fresh


def adaptive_training(group, policy, epochs):
    made = training(group, dist.get_world_size(group), "gcn", "exact", epochs)
    made.schedule = Schedule(made.graph, policy, steps=epochs)
    return made


def decisions_of_a_training(group, tolerance, epochs):
    """Whatever ranks wait is too long, so that the tolerance alone decides."""
    policy = Adaptive(tolerance, waiting=1e-12)
    fresh = steps_of(adaptive_training(group, policy, epochs), epochs)
    for each in policy.decisions:
        assert each.seen.waited_s > 0.0 and each.seen.step_s > 0.0
    # What was seen is the largest over the ranks, and so the same on all.
    return fresh, [(each.step, each.period, each.seen) for each in policy.decisions]


def replayed_is_the_same(group, epochs):
    policy = Adaptive(1e9, waiting=1e-12)
    first = adaptive_training(group, policy, epochs)
    fresh = steps_of(first, epochs)
    second = adaptive_training(group, policy.frozen(), epochs)
    assert steps_of(second, epochs) == fresh
    assert first.losses == second.losses
