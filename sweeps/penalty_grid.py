"""How does a penalty on proxy safety data trade safety for capability, and do the theorems tell?
(Trade-offs paper, Case I: Figure 1)

python sweeps/penalty_grid.py
python sweeps/penalty_grid.py --safety my_refusals.jsonl
"""

from raycib.grid import Arm
from raycib.orchestration.command import Question, sweep_command
from raycib.orchestration.setup import Setup
from raycib.spec import Case1, PlainLoRA, RunSpec

LAMBDAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""The paper's grid."""


def runs(setup: Setup) -> list[RunSpec]:
    """The first task with every proxy, the others with the original data alone."""
    assert setup.tradeoff is not None
    first, *others = setup.tasks
    proxies = list(setup.tradeoff.proxies)
    found = setup.runs_on([first], arms(setup, proxies))
    return found + setup.runs_on(others, arms(setup, proxies[:1]))


def arms(setup: Setup, proxies: list[str]) -> list[Arm]:
    """Plain LoRA, and Case I at each lambda with each proxy."""
    assert setup.tradeoff is not None
    data = setup.tradeoff.proxies
    return [Arm(PlainLoRA())] + [
        Arm(setup.method(Case1(lam=lam, safety=data[name])), f"Case I, {name}")
        for name in proxies
        for lam in setup.strengths("case1", LAMBDAS)
    ]


if __name__ == "__main__":
    sweep_command(
        Question(
            name="penalty_grid",
            question="How does a penalty on proxy safety data trade safety for capability?",
            runs=runs,
            kind="gaps",
            seeds=1,  # some 35 cells; --seeds 3 adds the others to them
        )
    )
