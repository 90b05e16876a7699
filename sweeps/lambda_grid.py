"""How does lambda trade safety for task accuracy, and does I(Z;C) explain it? (CIB, Table 3)

python sweeps/lambda_grid.py
ray job submit --working-dir . -- python sweeps/lambda_grid.py
"""

from collections.abc import Sequence

from raycib.grid import single_task
from raycib.orchestration.command import Question, sweep_command
from raycib.orchestration.setup import Setup
from raycib.spec import CIB, RunSpec

LAMBDAS = (0, 1, 2, 5, 10)
"""The paper's grid, and plain LoRA as lambda = 0."""


def runs(setup: Setup) -> Sequence[RunSpec]:
    """One cell for each lambda and seed."""
    return single_task(
        models=[setup.model],
        tasks=setup.tasks.values(),
        methods=[setup.method(CIB(lam=lam)) for lam in setup.strengths(LAMBDAS)],
        seeds=setup.seeds,
        lora=setup.lora,
        trainer=setup.trainer,
    )


if __name__ == "__main__":
    sweep_command(
        Question(
            name="lambda_grid",
            question="How does lambda trade safety for task accuracy, and does I(Z;C) explain it?",
            runs=runs,
        )
    )
