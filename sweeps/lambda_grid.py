"""How does lambda trade safety for task accuracy, and does I(Z;C) explain it? (CIB, Table 3)

python sweeps/lambda_grid.py
ray job submit --working-dir . -- python sweeps/lambda_grid.py --out /shared/runs
"""

from raycib.config import Method
from raycib.methods.cib import CIB
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.strength import Strength

LAMBDAS = (0, 1, 2, 5, 10)
"""The paper's grid, and plain LoRA as lambda = 0."""


def rows(setup: SweepConfig) -> list[Method]:
    """CIB at each lambda, and methods asked for instead."""
    cib = [setup.method(CIB(lam=lam)) for lam in setup.strengths("cib", LAMBDAS)]
    return [*cib, *setup.others(["cib"])]


if __name__ == "__main__":
    sweep_command(
        Question(
            name="lambda_grid",
            question="How does lambda trade safety for task accuracy, and does I(Z;C) explain it?",
            runs=lambda setup: setup.runs_of(rows(setup)),
            study=Strength(),
        )
    )
