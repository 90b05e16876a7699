"""What is left of safety and of earlier tasks after one task after another, and does their order
matter? (CIB, Tables 2 and 4, Figures 4-7)

python sweeps/task_orders.py
python sweeps/task_orders.py --orders sample:6
"""

from collections.abc import Iterator

from raycib.config import Method, PlainLoRA, RunSpec
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.continual import Continual, method_at, read_orders, runs_in

STRENGTHS = {
    "random_subset": (0.2,),
    "kl": (0.1,),
    "o_lora": (0.05,),
    "cib": (1,),
}
"""At which the tasks are learned; at the paper's 0.5 (O-LoRA) and 5 (CIB) some are not."""


def runs(setup: SweepConfig) -> list[RunSpec]:
    """Every method through the tasks in every order that is asked for."""
    orders = read_orders(setup.options.orders, list(setup.tasks))
    return runs_in(setup, orders, methods(setup))


def methods(setup: SweepConfig) -> Iterator[Method]:
    """Plain LoRA, and the methods that can go on from an adapter."""
    yield PlainLoRA()
    for kind, default in {**STRENGTHS, **setup.beyond(STRENGTHS)}.items():
        for strength in setup.strengths(kind, default):
            yield method_at(setup, kind, strength)


if __name__ == "__main__":
    sweep_command(
        Question(
            name="task_orders",
            question="What do safety and earlier tasks keep after one task after another?",
            runs=runs,
            study=Continual(),
            seeds=3,
        )
    )
