"""The methods that every invariance is tested for: a new method adds its cases here.

Safety data and base models are placeholders: `tiny.grounded` puts the tiny ones in their place.
"""

import math

from raycib.spec import (
    CIB,
    EMA,
    KL,
    SBR,
    AnyMethod,
    Case1,
    Case2,
    Case2Ball,
    ConstrainedToken,
    ModelSpec,
    OLoRA,
    PlainLoRA,
    RandomSubset,
    SafeGrad,
    SafeLoRA,
    SafetyMix,
    SaLoRA,
    TaskSpec,
    Vaccine,
)

SAFETY = TaskSpec(name="refusals", source="refusals.jsonl", rows="e" * 64, num_rows=12)
BASE = ModelSpec(source="before alignment", weights="b" * 64, tokenizer="t" * 64)

# 8 of at most 32 queued rows are negatives, so that with 16 rows a step the contrast starts at
# the second step and the queue overflows at the third.
_SMALL = {"queue_size": 32, "num_negatives": 8}

METHODS: dict[str, AnyMethod] = {
    "lora": PlainLoRA(),
    "random subset": RandomSubset(fraction=0.6),
    "kl": KL(lam=10.0),
    "kl, reverse over all tokens": KL(lam=10.0, direction="reverse", tokens="all"),
    "vaccine": Vaccine(rho=0.1),
    "vaccine, as its code has it": Vaccine(rho=2.0, ascent_steps=1, norm="batch"),
    "safe lora": SafeLoRA(base=BASE, threshold=0.69),
    "safe lora, number": SafeLoRA(base=BASE, choose="number", number=3),
    "safe lora, exact": SafeLoRA(base=BASE, choose="number", number=4, projector="exact"),
    "salora": SaLoRA(safety=SAFETY, safety_rank=4, task_rank=8),
    "salora, default start": SaLoRA(safety=SAFETY, safety_rank=4, init="default"),
    "o-lora": OLoRA(lam=0.1),
    "o-lora, as its paper has it": OLoRA(lam=1e4, norm="squared", factor="lora_B", mean=True),
    "cib": CIB(lam=1.0, **_SMALL),
    "cib, hardest at the last prompt token": CIB(
        lam=2.0, draw="hardest", pooling="last_prompt_token", layer="before_norm", **_SMALL
    ),
    "cib, recent and current": CIB(
        lam=1.0, queue="recent", negatives="current", max_age=2, pooling="last_token", **_SMALL
    ),
    "cib, most similar": CIB(
        lam=0.5, draw="most_similar", pooling="mean_all", exclude_self=False, **_SMALL
    ),
    "cib, semihard and centred": CIB(lam=1.0, draw="semihard", center=True, **_SMALL),
    "cib, anchor alone": CIB(lam=1.0, num_negatives=0),
    "safety mix": SafetyMix(share=0.3, safety=SAFETY),
    "constrained tokens": ConstrainedToken(beta=1.0),
    "ema": EMA(decay=0.8),
    "sbr": SBR(safety=SAFETY, anchors=8),
    "safegrad": SafeGrad(safety=SAFETY, rows_per_step=5),
    "case2": Case2(lam=0.01),
    "case1": Case1(lam=2.0, safety=SAFETY, rows_per_step=5),
    "case1, convex": Case1(lam=0.7, form="convex", safety=SAFETY),
    "case1, means over rows": Case1(lam=2.0, reduction="row", safety=SAFETY, rows_per_step=5),
    # Radii that bind from the second of six steps on: see test_tradeoff_methods.py.
    "case2 ball": Case2Ball(epsilon=0.25),
    "case2 ball, for each module": Case2Ball(epsilon=0.05, scope="module"),
}
TRAINED = {name: method for name, method in METHODS.items() if not method.derived}
"""Those that take optimiser steps."""


def at_zero(method: AnyMethod) -> AnyMethod:
    """The same method at the strength that is plain LoRA."""
    match method:
        case PlainLoRA():
            off = {}
        case RandomSubset():
            off = {"fraction": 1.0}
        case Vaccine():
            off = {"rho": 0.0}
        case SafeLoRA():
            off = {"threshold": -1.0, "number": 0}
        case SaLoRA():
            off = {"safety_rank": 0, "init": "default"}
        case SafetyMix():
            off = {"share": 0.0}
        case ConstrainedToken():
            off = {"beta": 0.0}
        case EMA():
            off = {"decay": 0.0}
        case Case2Ball():
            off = {"epsilon": math.inf}
        case KL() | OLoRA() | CIB() | SBR() | SafeGrad() | Case1() | Case2():
            off = {"lam": 0.0}
    return method.model_copy(update=off)


def nearly_zero(method: AnyMethod) -> AnyMethod | None:
    """The same method so weak that all it adds is lost in the rounding of float32, though all of
    its code runs; None where there is no such thing: the smallest safety subspace and the smallest
    number of modules are one, without its pull SafeGrad is surgery still, and a mean over rows is
    no mean over tokens."""
    match method:
        case PlainLoRA() | SaLoRA() | SafeGrad() | SafeLoRA(choose="number"):
            return None
        case Case1(reduction="row"):
            return None
        case RandomSubset():
            weak = {"fraction": 0.999}
        case Vaccine():
            weak = {"rho": 1e-30}
        case SafeLoRA():
            weak = {"threshold": -0.999}
        case SafetyMix():
            weak = {"share": 0.001}
        case ConstrainedToken():
            weak = {"beta": 1e-30}
        case EMA():
            weak = {"decay": 1e-30}
        case Case2Ball():
            weak = {"epsilon": 1e30}
        case KL() | OLoRA() | CIB() | SBR() | Case1() | Case2():
            weak = {"lam": 1e-30}
    return method.model_copy(update=weak)


def works_live(method: AnyMethod) -> bool:
    """Whether the method can do without cached references: no batch knows the task's mean."""
    return not (isinstance(method, CIB) and method.center)
