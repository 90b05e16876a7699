"""Which method keeps most safety, and at which cost? (CIB, Table 1, with the rows of 2026)

python sweeps/method_comparison.py
python sweeps/method_comparison.py --budget 8
python sweeps/method_comparison.py --methods kl,cib --strengths 0.1,0.3,1,3,10
"""

from collections.abc import Iterator
from dataclasses import replace

from raycib.config import Method, PlainLoRA
from raycib.config.grid import Variant, trials
from raycib.methods.cib import CIB
from raycib.methods.ema import EMA
from raycib.methods.salora import SaLoRA
from raycib.methods.vaccine import Vaccine
from raycib.runtime.command import Question, sweep_command
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.comparison import Comparison

STRENGTHS = {
    "random_subset": (0.2, 0.5),
    "kl": (0.1, 0.3, 1, 3),
    "vaccine": (0.01,),
    "safe_lora": (1.3, 1.5, 1.6),
    "salora": (32,),
    "o_lora": (0.005, 0.05, 0.5),
    "cib": (1, 2, 5, 10),
    "safety_mix": (0.01, 0.1),
    "constrained_token": (0.03, 0.1, 0.3),
    "ema": (0.9, 0.98, 0.995),
    "sbr": (0.05, 0.5, 50),
    "safegrad": (0.1, 10),
    "case2": (1e-3, 1e-2, 3e-2, 1e-1),
}
"""One strength is a straw man. What each means: `raycib methods`."""


SAFETY_EPOCHS = 10
"""Of a first stage on safety data, which has few rows."""


def variants(setup: SweepConfig) -> Iterator[Variant]:
    """Every method over its strengths, as far as there are the data and models that it needs."""
    budget, own = setup.options.budget, setup.trainer.learning_rate
    tried = {kind: setup.strengths(kind, strengths)
             for kind, strengths in {**STRENGTHS, **setup.beyond(STRENGTHS)}.items()}  # fmt: skip
    for kind, strengths in {"lora": (0.0,), **tried}.items():
        pairs = trials(strengths, own, budget) if budget and strengths else []
        for strength, rate in pairs or [(strength, own) for strength in strengths]:
            if row := variant_of(setup, kind, strength):
                yield row if rate == own else at_rate(setup, row, rate)
    if setup.options.strengths is None and budget is None:
        yield from retuned(setup)


def variant_of(setup: SweepConfig, kind: str, strength: float) -> Variant | None:
    """A method at a strength; None where there is not what it needs."""
    if kind == "lora":
        return Variant(PlainLoRA())
    method = setup.at(kind, strength)
    if method and method.stacked:
        return after_safety(setup, method) if setup.safety else None
    return Variant(method) if method else None


def at_rate(setup: SweepConfig, row: Variant, rate: float) -> Variant:
    """The row at another learning rate of the task."""
    slower = setup.trainer.model_copy(update={"learning_rate": rate})
    label = f"{row.method.about.name}, learning rate {rate:.3g}"
    return replace(row, label=label, trainer=slower)


def retuned(setup: SweepConfig) -> Iterator[Variant]:
    """Plain LoRA and EMA with tuned learning rates, CIB where its loss asks for nearness, SaLoRA
    from LoRA's own start, LoRA after a stage on safety data, and Vaccine's official form: a stage
    before the task."""
    for part in (2, 4) if "ema" in setup.wanted else ():
        for method in (PlainLoRA(), setup.method(EMA())):
            yield at_rate(setup, Variant(method), setup.trainer.learning_rate / part)
    if "cib" in setup.wanted:
        near = setup.method(CIB(lam=10, center=True, pooling="last_prompt_token"))
        yield Variant(near, "CIB, centred, last prompt token")
    if setup.safety and "salora" in setup.wanted:
        own_start = setup.method(SaLoRA(safety=setup.safety, init="default"))
        yield Variant(own_start, "SaLoRA, LoRA's own start")
    if setup.safety and "o_lora" in setup.wanted:
        yield after_safety(setup, PlainLoRA(), "LoRA after safety data")
    if setup.safety and "vaccine" in setup.wanted:
        official = Vaccine(rho=2, ascent_steps=1, norm="batch")
        label = "Vaccine on safety data, then LoRA"
        yield after_safety(setup, official, label, first=official, then=PlainLoRA())


def after_safety(
    setup: SweepConfig,
    method: Method,
    label: str = "",
    first: Method | None = None,
    then: Method | None = None,
) -> Variant:
    """A row whose task stage is trained on top of one on safety data."""
    longer = setup.trainer.model_copy(update={"epochs": SAFETY_EPOCHS})
    return Variant(method, label, setup.safety, first, then, first_trainer=longer)


if __name__ == "__main__":
    sweep_command(
        Question(
            name="method_comparison",
            question="Which method keeps most safety, and at which cost to the task?",
            runs=lambda setup: setup.runs_of(variants(setup)),
            study=Comparison(STRENGTHS),
            seeds=1,  # some 46 cells; --seeds 3 adds the others to them
        )
    )
