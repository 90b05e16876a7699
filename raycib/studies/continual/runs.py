"""Cells of several tasks: the orders that a person asks for (the given one, all, a sample, or a
list), and chains of stages."""

from collections.abc import Iterable, Sequence
from itertools import permutations, product
from math import factorial
from random import Random

from raycib.config import Method, RunSpec, StageSpec
from raycib.config.menu import menu
from raycib.errors import UserError
from raycib.runtime.sweep_config import SweepConfig

MOST_ORDERS = 5040
"""Of seven tasks; more would be no grid that anybody waits for."""

Order = tuple[str, ...]


def read_orders(text: str | None, tasks: Sequence[str]) -> list[Order]:
    """The orders that `text` names: None the given one, `all`, `sample:N` (the given one and N - 1
    others, the same on every machine), or orders such as `a>b>c;c>b>a`, of some or all tasks.

    Raises `UserError` for an unknown task, one that comes twice, or more orders than there are.
    """
    given = tuple(tasks)
    if text is None:
        return [given]
    if text == "all":
        return _all(given)
    if text.startswith("sample:"):
        return _sample(text, given)
    orders = [tuple(name.strip() for name in part.split(">")) for part in text.split(";")]
    for order in orders:
        _check(order, given)
    if twice := [order for order in orders if orders.count(order) > 1]:
        raise UserError(f"--orders {text!r}: {' > '.join(twice[0])} is given twice; give it once")
    return orders


def _all(given: Order) -> list[Order]:
    if factorial(len(given)) > MOST_ORDERS:
        raise UserError(
            f"--orders all: {len(given)} tasks have {factorial(len(given))} orders; give sample:N"
        )
    return list(permutations(given))


def _sample(text: str, given: Order) -> list[Order]:
    count = text.removeprefix("sample:")
    if not count.isdecimal() or not int(count):
        raise UserError(f"--orders {text!r}: found {count!r}, not a number; give e.g. sample:6")
    others = [order for order in _all(given) if order != given]
    if int(count) > len(others) + 1:
        raise UserError(
            f"--orders {text!r}: {len(given)} tasks have {len(others) + 1} orders; give at most "
            "that many, or all"
        )
    return [given, *Random("raycib orders").sample(others, int(count) - 1)]


def _check(order: Order, given: Order) -> None:
    if unknown := [name for name in order if name not in given]:
        raise UserError(
            f"--orders: no task {unknown[0]!r} in {' > '.join(order)!r}; there is "
            f"{', '.join(given)}"
        )
    if repeated := [name for name in order if order.count(name) > 1]:
        raise UserError(
            f"--orders: {repeated[0]!r} comes twice in {' > '.join(order)!r}; a sequence has each "
            "task once"
        )


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
