"""How many groups of a plan it is worth to train side by side."""

from raycib.config.plan import Plan
from raycib.runtime.planning.machine import machine_of
from raycib.runtime.planning.memory import Group
from raycib.runtime.planning.phases import phases
from raycib.runtime.planning.work import Work
from raycib.runtime.sweep import Sweep

WORTH_S = 10.0
"""Of training, by the plan's estimate, for each worker: to begin, one takes some 4 CPU s."""


def trainers(sweep: Sweep, plan: Plan, most: int) -> int:
    """As many as were asked for, else up to ``most``: those that train for longer than they take
    to begin. Cores that none of them has are the engine's, which then is ready sooner."""
    execution = sweep.setup.execution
    if execution.groups_at_once:
        return execution.groups_at_once
    group = Group(sweep, machine_of(sweep.setup.options, execution))
    training = next(phases(group, Work(sweep, plan, group.sizes)))
    if not training.told:
        return max(1, most)
    return max(1, min(most, int(3600 * training.hours / execution.workers / WORTH_S)))
