"""Which of CIB's options carry its effect? (an ablation that no paper has)

python sweeps/cib_options.py
"""

from collections.abc import Iterator

from raycib.config import PlainLoRA
from raycib.config.grid import Variant
from raycib.methods.cib import CIB
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.comparison import Ablation

CHANGES = {
    "as it is": {},
    "pool: last prompt token": {"pooling": "last_prompt_token"},
    "pool: last token": {"pooling": "last_token"},
    "pool: all tokens": {"pooling": "mean_all"},
    "before the final norm": {"layer": "before_norm"},
    "centred": {"center": True},
    "centred, last prompt token": {"center": True, "pooling": "last_prompt_token"},
    "negatives: z, not z ref": {"negatives": "current"},
    "negatives: most similar": {"draw": "most_similar"},
    "negatives: hardest": {"draw": "hardest"},
    "queue: most recent": {"queue": "recent"},
    "no negatives (anchor)": {"num_negatives": 0},
    "M = 128": {"queue_size": 128},
    "M = 2048": {"queue_size": 2048},
    "K = 8": {"num_negatives": 8},
    "K = 256": {"num_negatives": 256},
    "tau = 0.05": {"temperature": 0.05},
    "tau = 1": {"temperature": 1.0},
}
"""One change at a time, and the one pair that the pools suggest."""


def variants(setup: SweepConfig) -> Iterator[Variant]:
    """Plain LoRA, and CIB at the paper's lambda = 5 with each change."""
    yield Variant(PlainLoRA())
    for lam in setup.strengths("cib", (5,)):
        for label, change in CHANGES.items():
            method = setup.method(CIB(lam=lam)).model_copy(update=change)
            yield Variant(CIB.model_validate(method.model_dump()), f"CIB {label}")


if __name__ == "__main__":
    sweep_command(
        Question(
            name="cib_options",
            question="Which of CIB's options carry its effect?",
            runs=lambda setup: setup.runs_of(variants(setup)),
            study=Ablation(),
            seeds=1,  # some 20 cells; --seeds 3 adds the others to them
        )
    )
