"""How does the distance from the aligned model trade safety for capability? (Trade-offs paper, Case
II: Figure 2)

python sweeps/epsilon_grid.py
python sweeps/epsilon_grid.py --methods case2_ball --strengths 0.25,0.5,1,2
"""

from raycib.config import PlainLoRA, RunSpec
from raycib.config.grid import Variant
from raycib.methods.case2 import Case2
from raycib.methods.case2_ball import Case2Ball
from raycib.methods.cib import CIB
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.tradeoff import Tradeoff, case1_variants

EPSILONS = (0.5, 1, 1.5, 2, 4, 8)
"""Radii, as Frobenius norms of the update."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
LAMBDAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of Case I, as in `penalty_grid`, whose stages these are."""
CIB_LAMBDAS = (1, 2, 5, 10)


def runs(setup: SweepConfig) -> list[RunSpec]:
    """The first and the last task under Case II; the first one under Case I and CIB as well."""
    first, *_, last = [*setup.tasks, *setup.tasks]
    both = dict.fromkeys([first, last])
    return setup.runs_on(both, case2(setup)) + setup.runs_on([first], others(setup))


def case2(setup: SweepConfig) -> list[Variant]:
    """Plain LoRA, Case II as the ball that it is defined by and as the paper's penalty."""
    balls = [Case2Ball(epsilon=e) for e in setup.strengths("case2_ball", EPSILONS)]
    penalties = [Case2(lam=lam) for lam in setup.strengths("case2", PENALTIES)]
    return [Variant(setup.method(method)) for method in (PlainLoRA(), *balls, *penalties)]


def others(setup: SweepConfig) -> list[Variant]:
    """Case I with the original alignment data, CIB without any, and other methods asked for."""
    cib = [setup.method(CIB(lam=lam)) for lam in setup.strengths("cib", CIB_LAMBDAS)]
    more = setup.others(["case1", "case2", "case2_ball", "cib"])
    return [*case1_variants(setup, LAMBDAS, proxies=1), *map(Variant, cib), *map(Variant, more)]


if __name__ == "__main__":
    sweep_command(
        Question(
            name="epsilon_grid",
            question="How does the distance from the aligned model trade safety for capability?",
            runs=runs,
            study=Tradeoff(),
            seeds=1,  # some 30 cells; --seeds 3 adds the others to them
        )
    )
