"""How does a penalty on proxy safety data trade safety for capability, and do the theorems tell?
(Trade-offs paper, Case I: Figure 1)

python sweeps/penalty_grid.py
python sweeps/penalty_grid.py --safety my_refusals.jsonl
"""

from raycib.config import PlainLoRA, RunSpec
from raycib.config.grid import Variant
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.tradeoff import Tradeoff, case1_variants

LAMBDAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""The paper's grid."""
FEWER = (0.1, 0.5, 0.9)
"""On the other tasks, for the sake of the default's time; `--strengths` sets both."""


def runs(setup: SweepConfig) -> list[RunSpec]:
    """Plain LoRA and Case I: the first task with every proxy, the others with the original data
    alone."""
    first, *others = setup.tasks
    lora = Variant(PlainLoRA())
    more = map(Variant, setup.others(["case1"]))
    found = setup.runs_on([first], [lora, *case1_variants(setup, LAMBDAS), *more])
    return found + setup.runs_on(others, [lora, *case1_variants(setup, FEWER, proxies=1)])


if __name__ == "__main__":
    sweep_command(
        Question(
            name="penalty_grid",
            question="How does a penalty on proxy safety data trade safety for capability?",
            runs=runs,
            study=Tradeoff(),
            seeds=1,  # some 30 cells; --seeds 3 adds the others to them
        )
    )
