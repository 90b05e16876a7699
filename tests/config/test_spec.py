"""A key names a result: what changes the result changes it, and nothing else does.

Fields are found by introspection: a new one fails here until someone decides what it is.
"""

import json
import math
import subprocess
import sys
from typing import Any, Literal, get_args, get_origin

import pytest
from menu import METHODS
from pydantic import ValidationError

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


def example_for(kind: type[Spec], name: str) -> Any:
    """A spec whose field may be changed: only what has a parent can be fresh."""
    return ON_ANOTHER if (kind, name) == (StageSpec, "fresh") else EXAMPLES[kind]


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


def has_one_value(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def fields() -> list[Any]:
    return [
        pytest.param(kind, name, id=f"{kind.__name__}.{name}")
        for kind in every_spec()
        for name, field in kind.model_fields.items()
        if not has_one_value(field.annotation)
    ]


def changed(spec: Any, name: str) -> Any:
    """The same spec with another value of one field; it must be declared in ANOTHER."""
    kind = type(spec)
    if name not in ANOTHER.get(kind, {}):
        pytest.fail(f"{kind.__name__}.{name} is new: say in test_spec.py what it changes")
    other = kind.model_validate({**dict(spec), name: ANOTHER[kind][name]})
    assert other != spec
    return other


@pytest.mark.parametrize(("kind", "name"), fields())
def test_a_result_field_changes_the_key_and_a_location_does_not(kind: type[Spec], name: str):
    spec = example_for(kind, name)
    stays = key_of(changed(spec, name)) == key_of(spec)
    assert stays == (name in LOCATIONS.get(kind, set()))


@pytest.mark.parametrize(
    ("outer", "name", "inner"),
    [
        pytest.param(outer, name, inner, id=f"{type(outer).__name__}.{name}.{inner}")
        for outer in EXAMPLES.values()
        for name, value in outer
        if isinstance(value, Spec)
        for inner, field in type(value).model_fields.items()
        if not has_one_value(field.annotation)
    ],
)
def test_the_same_holds_for_a_spec_inside_another(outer: Any, name: str, inner: str):
    part = getattr(outer, name)
    whole = outer.model_copy(update={name: changed(part, inner)})
    assert (key_of(whole) == key_of(outer)) == (inner in LOCATIONS.get(type(part), set()))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_at_strength_zero_has_the_key_of_plain_lora(name: str):
    method, plain = METHODS[name], STAGE.model_copy(update={"method": PlainLoRA()})
    zero = STAGE.model_copy(update={"method": method.off()})
    own = STAGE.model_copy(update={"method": method})
    assert method.off().is_plain
    assert method.off().strength == (math.inf if isinstance(method, Case2Ball) else 0)
    assert zero.key == plain.key
    # O-LoRA is about what lies below, and here nothing does.
    assert (own.key == plain.key) == (method.strength == 0 or method.stacked)
    assert own.method == method, "what was asked for stays readable"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TrainerSpec(weight_decay=0.0), TrainerSpec(weight_decay=-0.0)),
        (CIB(lam=5.0), CIB.model_validate({"lam": 5})),
        (CIB(lam=5.0), CIB().model_copy(update={"lam": 5})),  # copies are not validated
        (LoRASpec(alpha=64.0), LoRASpec.model_validate_json('{"alpha": 64}')),
    ],
)
def test_equal_numbers_give_equal_keys_however_they_are_written(one: Spec, other: Spec):
    """JSON writes 5, 5.0 and -0.0 apart."""
    assert one == other
    assert key_of(one) == key_of(other)


def test_parents_enter_by_key():
    """So a parent's name and place do not matter, its content does, and identities stay short."""
    child = STAGE.model_copy(update={"parent": STAGE})
    assert child.identity()["parent"] == STAGE.key
    moved = STAGE.model_copy(update={"model": MODEL.model_copy(update={"source": "else"})})
    assert STAGE.model_copy(update={"parent": moved}).key == child.key
    other = STAGE.model_copy(update={"seed": 9})
    assert STAGE.model_copy(update={"parent": other}).key != child.key
    grandchild = STAGE.model_copy(update={"parent": child})
    assert len({STAGE.key, child.key, grandchild.key}) == 3


@pytest.mark.parametrize("kind", every_spec())
def test_equal_specs_share_a_key_after_a_round_trip_through_json(kind: type[Spec]):
    spec = EXAMPLES[kind]
    others = (changed(example_for(kind, name), name) for name in ANOTHER[kind])
    for one in (spec, *others):
        again = kind.model_validate_json(one.model_dump_json())
        assert again == one
        assert key_of(again) == key_of(one)
    if not isinstance(spec, Method):
        assert len(spec.key) == 64
        assert spec.short == spec.key[:12]


def test_a_key_does_not_depend_on_the_order_of_fields():
    assert digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1})
    fields = json.loads(STAGE.model_dump_json())
    assert StageSpec.model_validate(dict(reversed(fields.items()))).key == STAGE.key


GOLDEN = {
    "CIB": "faf7abf113173c267c3647503c9c2298ed34be59711966ca3605a3541a673666",
    "Case1": "85797d20a6c2e149d7d57361613028fa7da89cb28c29f2487f520dcca8efd09a",
    "Case2": "448751992395c6613519229e0db6b1a22b18f4872a5c3e05f921f457dedce8d1",
    "Case2Ball": "411fb49791756478016f7497d1328d29c7526a84d77233605840e8f8b563575d",
    "ConstrainedToken": "63b03733fc8dd0cb2a9f884484753b8858098b4c6a005ea27cbd1bdebe8eaa27",
    "EMA": "4af142c2e7c6d93bab934f5b76b91a8585e0e5ecc761d521157833c7c207647c",
    "EvalSpec": "01bb232fcbbc0d7a279cd40ca5a5f463682899c21ae02637c3e764c1064e0394",
    "GapSpec": "75977cb54bedfad0620cbdbde90d356f3deea89dc8316925784634998f7bac13",
    "JudgeSpec": "9e301a7c0f2c89b759b67b7b088ef7c5e64df60322352f813b54b962260d0b6c",
    "LmEvalSpec": "8bc41f363de8a54d9d5ea3a0c52ba8a66bb02daec293c9c2097b0afd243f229f",
    "KL": "fa222c62313e7a1d5400d270d98ae26e5908e4bba6b5c92740cd37b8a820c6c2",
    "LandscapeSpec": "bf0a992a50b08b96c2bbc2ae1c3f62ad440887acf79424a4ca579464864a77e2",
    "LoRASpec": "bebf9c85df9eb7df2050ec2d4235136e238bf5f9e7312c4e7e84f938c4f78bc0",
    "ModelSpec": "c5290de83127c00f3c7777a4d4116da8c32068018b1d1b57fb2c793edfa40f72",
    "OLoRA": "29f81073f2c40cb634ea132bec7387c4fbd4e0845b750e4abffa19ac44f51d13",
    "PlainLoRA": "8699de4098e293da81084a4408a775cc3b51e89ac89fd17e41e7dbf6ac550932",
    "RandomSubset": "5d81af13b2d55da53b44e9ddceb05de2eacb6073c688adc6e2b68c6c01ca7f3e",
    "RowsSpec": "445a3b71dc62376542f16bfd3b49cd7e7771deef9adc36f643fdd3449b77069f",
    "RunSpec": "bf354293ae264fd2dcd94711cbc0f05183b43819321c60d29086ea3e4ef7919c",
    "SBR": "d8faaa66c57f879c492bc24e49deddb5d214182a34b46a6dfcdcf7095e1b874b",
    "SaLoRA": "df6311737484401ac052da005f964ca1bffb2941f44d1073340fe2f591bf7725",
    "SafeGrad": "ae2e8dd8fbd4647bbe67ad4daf054c91616458c09891f35181152eb55f625273",
    "SafeLoRA": "e3edae1d42ffe321cb84d3f6d0820fb972abf35980bbc453268b221ffb019c16",
    "SafetyMix": "f1f287ffaa0ce2b964980fbc9037012705e2e89cb32b92a98fed0a892ac32d73",
    "StageSpec": "bb7a0936567ae74e26d0299c40a308ca1446ec7b9c741e8315dfec6637aaf038",
    "TaskSpec": "3171fd4cf94919cd94b074b72217653ebf0e0720e2ef9623ac1fc47a92bde9a4",
    "TrainerSpec": "1e46964de6ad98f1eaf04ae8fb6067e56056207e3703d2ab189f833a1c09f279",
    "Vaccine": "39ac78c4249150c6d9a51bb98dab3160fabf10e9a60b70c67ab0b80e9cc57347",
    "child at zero": "1fb1a487759be58f17a5360a7d7fbf8a4d2143db6aceb036c715493e606088eb",
    "derived": "833c9e21605afa491c463638f270fed0a903bd5e31726ad14e196056c28d4bc6",
    "a whole model": "4ea58005eaff813a5e479e3b329810cf4e654f4f4c180203561bd9c84ae4de70",
    "fresh child": "f2992867309ff829baae89a2b16d4f1e6dcf8e9b9a6f994a525244703db40717",
}
"""Keys of EXAMPLES (RESULTS_VERSION 2). A store outlives its raycib: if one of these moves, every
result of every user is lost to them. Raise RESULTS_VERSION only when results really change."""


def test_keys_never_move():
    keys = {kind.__name__: key_of(EXAMPLES[kind]) for kind in every_spec()}
    child = STAGE.model_copy(update={"parent": STAGE, "method": CIB(lam=0)})
    fresh = ON_ANOTHER.model_copy(update={"fresh": True})
    chained = {"child at zero": child.key, "fresh child": fresh.key, "derived": DERIVED.key}
    chained["a whole model"] = StageSpec(model=MODEL, task=TASK, lora=None).key
    assert {name: (keys | chained).get(name) for name in GOLDEN} == GOLDEN


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kind": "cib", "lamda": 1.0}, "lamda"),
        ({"kind": "cib", "lam": -1.0}, "lam"),
        ({"kind": "cib", "lam": math.nan}, "lam"),
        ({"kind": "cib", "temperature": 0.0}, "temperature"),
        ({"kind": "cib", "num_negatives": -1}, "num_negatives"),
        ({"kind": "random_subset", "fraction": 0.0}, "fraction"),
        ({"kind": "random_subset", "fraction": 1.1}, "fraction"),
        ({"kind": "kl", "direction": "both"}, "direction"),
        ({"kind": "vaccine", "ascent_steps": 0}, "ascent_steps"),
        ({"kind": "safe_lora"}, "base"),
        ({"kind": "salora", "safety": SAFETY, "safety_rank": 129}, "safety_rank"),
        ({"kind": "salora"}, "safety"),
        ({"kind": "ema", "decay": 1.0}, "decay"),
        ({"kind": "safety_mix", "safety": SAFETY, "share": -0.1}, "share"),
        ({"kind": "cib", "pooling": "mean"}, "pooling"),
        ({"kind": "case1"}, "safety"),
        ({"kind": "case1", "safety": SAFETY, "rows_per_step": 0}, "rows_per_step"),
        ({"kind": "case1", "safety": SAFETY, "lam": math.inf}, "lam"),
        ({"kind": "case1", "safety": SAFETY, "lam": 1.1, "form": "convex"}, "convex form needs"),
        ({"kind": "case2_ball", "epsilon": -0.1}, "epsilon"),
        ({"kind": "case2_ball", "epsilon": math.nan}, "epsilon"),
        ({"kind": "case2_ball", "scope": "layer"}, "scope"),
        ({"kind": "lora", "lam": 1.0}, "lam"),
        ({"kind": "ibc"}, "no method 'ibc'; there is lora (LoRA), "),
    ],
)
def test_a_wrong_field_of_a_method_is_refused_by_name(given: dict[str, Any], named: str):
    with pytest.raises(ValidationError) as refusal:
        StageSpec.model_validate({"model": MODEL, "task": TASK, "method": given})
    (error,) = refusal.value.errors()
    assert error["loc"][0] == "method"
    assert error["loc"][1:] == (named,) or named in error["msg"]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TrainerSpec, {"learning_rate": 0}),
        (TrainerSpec, {"warmup_steps": -1}),
        (TrainerSpec, {"batch_size": 1.5}),
        (LoRASpec, {"rank": 0}),
        (TaskSpec, {"num_rows": 0}),
        (StageSpec, {"seed": -1}),
        (RowsSpec, {"max_tokens": 0}),
    ],
)
def test_a_wrong_value_is_refused_by_name(kind: type[Spec], wrong: dict[str, Any]):
    with pytest.raises(ValidationError) as refusal:
        kind.model_validate({**dict(EXAMPLES[kind]), **wrong})
    assert [error["loc"] for error in refusal.value.errors()] == [tuple(wrong)]


def test_specs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        STAGE.seed = 3


def test_steps_count_the_short_last_batch_of_every_epoch():
    """100 rows in batches of 64 are 2 steps an epoch, 6 in 3 epochs."""
    assert STAGE.steps == 2
    assert changed(STAGE, "trainer").steps == 6


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        (RandomSubset(fraction=0.6), 1),  # 60 rows
        (RandomSubset(fraction=0.65), 2),  # 65
        (RandomSubset(fraction=1e-6), 1),  # at least one
        (SafetyMix(share=0.28, safety=SAFETY), 2),  # 128
        (SafetyMix(share=0.29, safety=SAFETY), 3),  # 129
        (SafetyMix(share=0.0, safety=SAFETY), 2),
        (SBR(safety=SAFETY), 2),  # its safety rows come beside the task's
    ],
)
def test_steps_count_the_rows_that_a_method_trains_on(method: Any, steps: int):
    """Of 100 rows in batches of 64."""
    stage = StageSpec(model=MODEL, task=TASK, method=method)
    assert stage.steps == steps
    assert stage.model_copy(update={"trainer": TrainerSpec(epochs=3)}).steps == 3 * steps


def test_a_derived_adapter_takes_no_step():
    assert DERIVED.steps == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": SafeLoRA(base=BASE)}, "safe_lora: a stage that builds on another needs a par"),
        ({"fresh": True}, "lora: a stage that builds on another needs a parent"),
        ({"fresh": True, "method": OLoRA()}, "o_lora: a stage that builds on another needs a par"),
        (
            {"method": SafeLoRA(base=BASE, threshold=-1.0), "parent": STAGE},
            "safe_lora at strength zero is its parent: use that stage",
        ),
        (
            {"method": SafeLoRA(base=BASE, choose="number", number=0), "parent": STAGE},
            "safe_lora at strength zero is its parent: use that stage",
        ),
        (
            {"method": SafeLoRA(base=BASE), "parent": STAGE, "fresh": True},
            "safe_lora is derived from its parent's adapter: leave fresh out",
        ),
        (
            {"method": SaLoRA(safety=SAFETY), "parent": STAGE},
            "salora has a start of its own and cannot go on from a parent's adapter: set fresh",
        ),
        (
            {"parent": STAGE, "lora": LoRASpec(rank=8)},
            "lora: its parent's adapter has rank 32, not 8: set fresh",
        ),
        (
            {"parent": StageSpec(model=MODEL, task=TASK, method=SaLoRA(safety=SAFETY))},
            "lora: its parent's adapter has rank 64, not 32: set fresh",
        ),
        (
            {"parent": StageSpec(model=BASE, task=TASK)},
            "lora: its parent was trained from another model",
        ),
        (
            {"method": Case2Ball(epsilon=1), "parent": STAGE, "fresh": True},
            "case2_ball bounds all that is added to the aligned model, of which its parent's part",
        ),
        ({"parent": STAGE, "lora": None}, "lora: a stage that trains all weights .lora=None. star"),
        ({"method": CIB(), "lora": None}, "cib: a stage that trains all weights .lora=None. start"),
        ({"method": Case2Ball(epsilon=1), "lora": None}, "case2_ball: a stage that trains all we"),
        ({"fresh": True, "lora": None}, "lora: a stage that builds on another needs a parent"),
        (
            {"parent": StageSpec(model=MODEL, task=TASK, lora=None)},
            "lora: its parent is a model, not an adapter: start from it",
        ),
    ],
)
def test_a_stage_that_does_not_fit_its_parent_is_refused(given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        StageSpec(model=MODEL, task=TASK, **given)


def test_a_method_that_bounds_nothing_may_be_fresh_and_train_all_weights():
    """An infinite ball is plain LoRA, and Case I at zero."""
    for method in (Case2Ball(), Case1(lam=0, safety=SAFETY), CIB(lam=0)):
        fresh = StageSpec(model=MODEL, task=TASK, method=method, parent=STAGE, fresh=True)
        assert fresh.key == fresh.model_copy(update={"method": PlainLoRA()}).key
        whole = StageSpec(model=MODEL, task=TASK, method=method, lora=None)
        assert whole.key == StageSpec(model=MODEL, task=TASK, lora=None).key
    on = StageSpec(model=MODEL, task=TASK, method=Case2Ball(epsilon=1), parent=STAGE)
    assert on.method_in_effect == Case2Ball(epsilon=1), "all of the update is its own to scale"


def test_gaps_are_measured_besides():
    asked = EVALS.model_copy(update={"measures": (GAPS,)})
    assert asked.key != EVALS.key
    assert asked.measures_key("subject") == EVALS.measures_key("subject")
    assert EVALS.measured_keys("subject") == (EVALS.measures_key("subject"),)
    both = (EVALS.measures_key("subject"), GAPS.stored_key("subject"))
    assert asked.measured_keys("subject") == both


def test_losses_ignore_how_long_an_answer_may_be():
    own = GAPS.stored_key("subject")
    for part in ("alignment", "task"):
        for name in ("max_tokens", "name", "source", "notes"):
            same = GAPS.model_copy(update={part: changed(ROWS, name)})
            assert same.stored_key("subject") == own
        for name in ("rows", "num_rows", "max_length"):
            assert GAPS.model_copy(update={part: changed(ROWS, name)}).stored_key("subject") != own
    assert GAPS.stored_key("another") != own


def test_a_fresh_adapter_has_a_key_of_its_own():
    fresh = ON_ANOTHER.model_copy(update={"fresh": True})
    assert fresh.key != ON_ANOTHER.key


def test_o_lora_is_o_lora_only_where_something_lies_below():
    """On its own, and where it goes on from a parent's factors, nothing frozen is there to be
    orthogonal to."""
    alone = StageSpec(model=MODEL, task=TASK, method=OLoRA())
    goes_on = alone.model_copy(update={"parent": STAGE})
    on_top = goes_on.model_copy(update={"fresh": True})
    assert alone.method_in_effect == goes_on.method_in_effect == PlainLoRA()
    assert on_top.method_in_effect == OLoRA()
    assert alone.key == StageSpec(model=MODEL, task=TASK).key
    assert on_top.key != on_top.model_copy(update={"method": PlainLoRA()}).key
    assert RunSpec(stages=(STAGE, on_top), evals=EVALS).method == OLoRA()
    assert RunSpec(stages=(alone,), evals=EVALS).method == PlainLoRA()
    assert RunSpec(stages=(alone,), evals=EVALS, compared=OLoRA()).method == OLoRA()


def test_an_exported_rank_counts_what_lies_below_and_what_is_subtracted():
    """Rank 32: SaLoRA's start is subtracted by 32 more; a stack adds up; going on does not."""
    plain = StageSpec(model=MODEL, task=TASK)
    own = SaLoRA(safety=SAFETY)
    assert plain.exported_rank == 32
    assert DERIVED.exported_rank == 32
    assert plain.model_copy(update={"method": own}).exported_rank == 64
    default = own.model_copy(update={"init": "default"})
    assert plain.model_copy(update={"method": default}).exported_rank == 32
    none = default.model_copy(update={"safety_rank": 0})
    assert plain.model_copy(update={"method": none}).exported_rank == 32
    assert plain.model_copy(update={"parent": plain}).exported_rank == 32
    second = plain.model_copy(
        update={"parent": plain, "fresh": True, "method": OLoRA(), "lora": LoRASpec(rank=8)}
    )
    assert second.exported_rank == 40
    third = second.model_copy(update={"parent": second, "method": own})
    assert third.exported_rank == 40 + 16


def test_measures_ignore_how_long_an_answer_may_be():
    """They are taken on given responses, so max_tokens plays no part; everything else does."""
    own = EVALS.measures_key("subject")
    for name in ("max_tokens", "name", "source", "notes"):
        same = EVALS.model_copy(update={"held_out": changed(ROWS, name)})
        assert same.measures_key("subject") == own
    for name in ("rows", "num_rows", "max_length"):
        other = EVALS.model_copy(update={"held_out": changed(ROWS, name)})
        assert other.measures_key("subject") != own
    assert EVALS.measures_key("another") != own
    assert changed(EVALS, "pooling").measures_key("subject") != own
    assert changed(EVALS, "harmful").measures_key("subject") == own


def test_an_evaluation_reads_its_own_pooling_and_the_deciding_position_once_each():
    assert EVALS.features == (("mean_response", "final_norm"), ("last_prompt_token", "final_norm"))
    decision = EVALS.model_copy(update={"pooling": "last_prompt_token"})
    assert decision.features == (("last_prompt_token", "final_norm"),)


def test_specs_plans_grids_and_rows_need_no_torch_and_no_ray():
    """The command line and the analysis read them: they start in a moment."""
    program = (
        "import sys, raycib.config, raycib.config.plan, raycib.config.grid, "
        "raycib.data.rows, raycib.model_files\n"
        "heavy = {'torch', 'ray', 'mlflow', 'transformers', 'datasets', 'pandas', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
