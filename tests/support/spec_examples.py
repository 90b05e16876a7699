"""An example of every spec, another valid value of each of its fields, and which fields never
enter a key."""

import math
from typing import Any

import pytest

from raycib.config import (
    EvalSpec,
    JudgeSpec,
    LmEvalSpec,
    LoRASpec,
    Measure,
    Method,
    ModelSpec,
    PlainLoRA,
    RowsSpec,
    RunSpec,
    Spec,
    StageSpec,
    TaskSpec,
    TrainerSpec,
    digest,
)
from raycib.config.base import RESULTS_VERSION
from raycib.config.data import RowsBase
from raycib.methods.case1 import Case1
from raycib.methods.case2 import Case2
from raycib.methods.case2_ball import Case2Ball
from raycib.methods.cib import CIB
from raycib.methods.constrained_token import ConstrainedToken
from raycib.methods.ema import EMA
from raycib.methods.ewc import EWC
from raycib.methods.kl import KL
from raycib.methods.l2_sp import L2SP
from raycib.methods.o_lora import OLoRA
from raycib.methods.random_subset import RandomSubset
from raycib.methods.safe_lora import SafeLoRA
from raycib.methods.safegrad import SafeGrad
from raycib.methods.safety_mix import SafetyMix
from raycib.methods.salora import SaLoRA
from raycib.methods.sbr import SBR
from raycib.methods.vaccine import Vaccine
from raycib.studies.tradeoff.jobs import LandscapeSpec
from raycib.studies.tradeoff.measure import GapSpec

MODEL = ModelSpec(source="here", weights="w" * 64, tokenizer="t" * 64)
TASK = TaskSpec(name="sums", source="sums.jsonl", rows="r" * 64, num_rows=100)
ROWS = RowsSpec(name="asked", source="asked.jsonl", rows="a" * 64, num_rows=10)
SAFETY = TaskSpec(name="refusals", source="refusals.jsonl", rows="e" * 64, num_rows=20)
BASE = ModelSpec(source="before", weights="b" * 64, tokenizer="t" * 64)
STAGE = StageSpec(model=MODEL, task=TASK, method=CIB())
EVALS = EvalSpec(harmful=ROWS, held_out=ROWS)
JUDGE = JudgeSpec(kind="guard", source="guard", weights="g" * 64)
BENCHMARK = LmEvalSpec(
    name="arc_challenge", source="arc_challenge", folder="/here", package="0.4.13", version="1.0",
    config="c" * 64, asked="a" * 64, documents=1172,
)  # fmt: skip
GAPS = GapSpec(alignment=ROWS, task=ROWS)
LANDSCAPE = LandscapeSpec(what="smoothness", model=MODEL, rows=ROWS, lora=LoRASpec())
EXAMPLES: dict[type[Spec], Any] = {
    type(one): one
    for one in (
        *(MODEL, TASK, ROWS, STAGE, EVALS, JUDGE, GAPS, LANDSCAPE, LoRASpec(), BENCHMARK),
        *(PlainLoRA(), RandomSubset(), KL(), Vaccine(), SafeLoRA(base=BASE), OLoRA(), CIB()),
        *(SaLoRA(safety=SAFETY), SafetyMix(safety=SAFETY), SBR(safety=SAFETY)),
        *(SafeGrad(safety=SAFETY), ConstrainedToken(), EMA(), Case2(), L2SP(), EWC(safety=SAFETY)),
        *(Case1(safety=SAFETY), Case2Ball(epsilon=1.0)),
    )
} | {TrainerSpec: TrainerSpec(), RunSpec: RunSpec(stages=(STAGE,), evals=EVALS)}

OTHER_ROWS = ROWS.model_copy(update={"rows": "b" * 64})
ANOTHER: dict[type[Spec], dict[str, Any]] = {
    ModelSpec: {
        "source": "elsewhere",
        "weights": "x" * 64,
        "tokenizer": "y" * 64,
        "dtype": "bfloat16",
        "template": "chatml",
        "day": "2024-07-26",
        "quantization": "nf4",
        "capped": True,
        "notes": ("thinking is switched off",),
    },
    TaskSpec: {
        "name": "additions",
        "source": "copy.jsonl",
        "rows": "s" * 64,
        "num_rows": 101,
        "max_length": 512,
        "notes": ("12 rows read",),
        "left_out": (3, 7),
        "cut": 2,
    },
    LoRASpec: {"rank": 16, "alpha": 32.0, "targets": ("q_proj", "v_proj")},
    TrainerSpec: {
        "learning_rate": 2e-4,
        "batch_size": 32,
        "epochs": 2,
        "warmup_steps": 0,
        "schedule": "cosine",
        "max_grad_norm": 0.5,
        "weight_decay": 0.1,
        "betas": (0.9, 0.95),
        "precision": "bfloat16",
    },
    PlainLoRA: {},
    CIB: {
        "lam": 2.0,
        "temperature": 0.5,
        "queue_size": 256,
        "num_negatives": 32,
        "pooling": "last_token",
        "layer": "before_norm",
        "queue": "recent",
        "draw": "hardest",
        "negatives": "current",
        "exclude_self": False,
        "center": True,
        "max_age": 10,
    },
    RandomSubset: {"fraction": 0.5},
    KL: {"lam": 2.0, "direction": "reverse", "tokens": "all"},
    Vaccine: {"rho": 2.0, "ascent_steps": 1, "norm": "batch"},
    SafeLoRA: {
        "base": BASE.model_copy(update={"weights": "x" * 64}),
        "choose": "number",
        "threshold": 0.4,
        "number": 3,
        "projector": "exact",
    },
    SaLoRA: {
        "safety": SAFETY.model_copy(update={"rows": "f" * 64}),
        "safety_rank": 8,
        "init": "default",
        "task_rank": 16,
        "calibration_rows": 64,
    },
    OLoRA: {"lam": 5.0, "norm": "squared", "factor": "lora_B", "mean": True},
    SafetyMix: {"share": 0.1, "safety": SAFETY.model_copy(update={"rows": "f" * 64})},
    ConstrainedToken: {"beta": 0.5, "first_factor": 1.0, "early_factor": 5.0},
    EMA: {"decay": 0.5},
    SBR: {"lam": 5.0, "anchors": 4, "safety": SAFETY.model_copy(update={"rows": "f" * 64})},
    SafeGrad: {
        "lam": 2.0,
        "rows_per_step": 4,
        "safety": SAFETY.model_copy(update={"rows": "f" * 64}),
    },
    Case2: {"lam": 1.0},
    L2SP: {"lam": 1.0},
    EWC: {
        "lam": 2.0,
        "fisher_rows": 64,
        "safety": SAFETY.model_copy(update={"rows": "f" * 64}),
    },
    Case1: {
        "lam": 0.9,
        "form": "convex",
        "rows_per_step": 4,
        "reduction": "row",
        "safety": SAFETY.model_copy(update={"rows": "f" * 64}),
    },
    Case2Ball: {"epsilon": math.inf, "scope": "module"},
    StageSpec: {
        "model": MODEL.model_copy(update={"weights": "x" * 64}),
        "task": TASK.model_copy(update={"rows": "s" * 64}),
        "method": PlainLoRA(),
        "lora": LoRASpec(rank=8),
        "trainer": TrainerSpec(epochs=3),
        "seed": 1,
        "parent": STAGE,
        "fresh": True,
    },
    RowsSpec: {
        "name": "prompts",
        "source": "copy.jsonl",
        "rows": "b" * 64,
        "num_rows": 11,
        "max_length": 512,
        "max_tokens": 128,
        "left_out": (3, 7),
        "cut": 2,
        "notes": ("12 rows read",),
        "scorer": "exact-match",
    },
    EvalSpec: {
        "harmful": OTHER_ROWS,
        "other_harmful": (OTHER_ROWS,),
        "benign": OTHER_ROWS,
        "held_out": OTHER_ROWS,
        "probes": (ROWS,),
        "pooling": "last_token",
        "layer": "before_norm",
        "engine": "transformers",
        "measures": (GAPS,),
        "tasks": (OTHER_ROWS,),
        "benchmarks": (BENCHMARK,),
        "looks": OTHER_ROWS,
        "harmful_only": True,
    },
    LmEvalSpec: {
        "name": "ARC",
        "source": "/here/arc.yaml",
        "folder": "/there",
        "package": "0.4.14",
        "version": "2.0",
        "config": "d" * 64,
        "asked": "b" * 64,
        "documents": 100,
        "shots": 25,
        "limit": 100,
        "chat": True,
        "in_words": True,
        "sampled": True,
        "few_shot": "25",
        "available": 1172,
        "longest": 512,
        "tokens": 100_000,
        "square_tokens": 10_000_000,
        "scored": 5_000,
        "cut": 3,
    },
    GapSpec: {"alignment": OTHER_ROWS, "task": OTHER_ROWS},
    LandscapeSpec: {
        "what": "lipschitz",
        "model": MODEL.model_copy(update={"weights": "x" * 64}),
        "rows": OTHER_ROWS,
        "lora": LoRASpec(rank=8),
        "radii": (1.0, 2.0),
    },
    JudgeSpec: {
        "kind": "endpoint",
        "source": "https://judge.example",
        "weights": "h" * 64,
        "tokenizer": "k" * 64,
        "categories": ("S1",),
        "prefix": "\n\n",
        "profile": "llama-guard-3",
        "form": "f" * 64,
        "content": True,
    },
    RunSpec: {
        "stages": (STAGE, STAGE),
        "evals": EvalSpec(harmful=ROWS, held_out=OTHER_ROWS),
        "compared": EMA(),
        "label": "our own",
        "hrr_every": 20,
    },
}
"""Another valid value of every field."""

LOCATIONS = {ModelSpec: {"source", "notes"}, TaskSpec: {"name", "source", "notes", "left_out"}} | {
    RowsSpec: {"name", "source", "notes", "scorer", "left_out"},
    JudgeSpec: {"source"},
    EvalSpec: {"engine", "looks", "harmful_only"},
    LmEvalSpec: {
        *("name", "source", "folder", "in_words", "available", "longest", "cut"),
        *("sampled", "few_shot", "tokens", "square_tokens", "scored"),
    },
    RunSpec: {"compared", "label", "hrr_every"},
}
"""The fields that say where or how it is called, and never enter a key."""

ON_ANOTHER = STAGE.model_copy(update={"parent": STAGE})
DERIVED = StageSpec(
    model=MODEL,
    task=TASK,
    method=SafeLoRA(base=BASE),
    parent=StageSpec(model=MODEL, task=TASK),
)


def every_spec() -> list[type[Spec]]:
    """Every spec of the package."""
    found, todo = [], list(Spec.__subclasses__())
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith("raycib.") and kind not in (RowsBase, Method, Measure):
            found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


def key_of(spec: Spec) -> str:
    """A spec's key; of a method, which enters a stage's by its identity and has none, as if it were
    called by its class."""
    if not isinstance(spec, Method):
        return spec.key
    name = type(spec).__name__
    return digest({"kind": name, "version": RESULTS_VERSION, **spec.identity()})


def changed(spec: Any, name: str) -> Any:
    """The same spec with another value of one field; it must be declared in ANOTHER."""
    kind = type(spec)
    if name not in ANOTHER.get(kind, {}):
        pytest.fail(f"{kind.__name__}.{name} is new: say in spec_examples.py what it changes")
    other = kind.model_validate({**dict(spec), name: ANOTHER[kind][name]})
    assert other != spec
    return other
