"""Which negatives keep most safety? (CIB, Figure 3)

python sweeps/negatives.py
"""

from collections.abc import Iterator

from raycib.config import PlainLoRA
from raycib.config.grid import Variant
from raycib.methods.cib import CIB
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.comparison import Ablation


def variants(setup: SweepConfig) -> Iterator[Variant]:
    """Plain LoRA, and CIB with each rule for its negatives at the paper's lambda = 5."""
    rules = {
        "CIB, no negatives": CIB(num_negatives=0),
        "CIB, random": CIB(queue="recent"),
        "CIB, random of the hardest rows": CIB(),
        "CIB, the hardest rows": CIB(draw="hardest"),
        "CIB, semi-hard": CIB(draw="semihard"),
        "CIB, most similar": CIB(draw="most_similar"),
    }
    yield Variant(PlainLoRA())
    for lam in setup.strengths("cib", (5,)):
        for label, rule in rules.items():
            yield Variant(setup.method(rule.model_copy(update={"lam": lam})), label)


if __name__ == "__main__":
    sweep_command(
        Question(
            name="negatives",
            question="Which negatives keep most safety?",
            runs=lambda setup: setup.runs_of(variants(setup)),
            study=Ablation(),
        )
    )
