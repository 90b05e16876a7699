"""Cells of several tasks: chains of stages."""

from collections.abc import Iterable, Sequence
from itertools import product

from raycib.config import Method, RunSpec, StageSpec
from raycib.config.menu import menu
from raycib.errors import UserError
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.continual.orders import Order


def method_at(setup: SweepConfig, kind: str, strength: float) -> Method:
    """A method at a strength for a sequence of tasks; `UserError` for one that cannot go on from
    an adapter."""
    if menu()[kind].derived or menu()[kind].starts_itself:
        raise UserError(f"{kind} cannot go on from the adapter of an earlier task")
    method = setup.at(kind, strength)
    if method is None:
        raise UserError(f"{kind} needs safety data: give --safety")
    return method


def runs_in(
    setup: SweepConfig, orders: Sequence[Order], methods: Iterable[Method]
) -> list[RunSpec]:
    """One cell for each order of the tasks, each method and each seed: a chain in which each stage
    goes on from the adapter of the one before it. A method about stacked adapters has one of its
    own for every task instead, on top of the earlier ones, which stay frozen. Orders that begin
    alike share their first stages."""
    (_, evals), *_ = setup.tasks.values()
    runs = []
    for order, method, seed in product(orders, list(methods), setup.seeds):
        stages: list[StageSpec] = []
        for task in order:
            parent = stages[-1] if stages else None
            stages.append(
                StageSpec(
                    model=setup.model,
                    task=setup.tasks[task][0],
                    method=method,
                    lora=setup.lora,
                    trainer=setup.trainer,
                    seed=seed,
                    parent=parent,
                    fresh=method.stacked and parent is not None,
                )
            )
        # At strength zero, as in its first stage, a method is plain LoRA: the cell says which.
        compared = None if stages[-1].method_in_effect == method else method
        chain = (*setup.inputs.made_by, *stages)
        runs.append(RunSpec(stages=chain, evals=evals, compared=compared))
    return runs
