"""What a spec refuses, by name: unknown fields, wrong values, parents that do not fit."""

import math
from typing import Any

import pytest
from pydantic import ValidationError
from spec_examples import BASE, EXAMPLES, MODEL, SAFETY, STAGE, TASK

from raycib.config import (
    LoRASpec,
    PlainLoRA,
    RowsSpec,
    Spec,
    StageSpec,
    TaskSpec,
    TrainerSpec,
)
from raycib.methods.case1 import Case1
from raycib.methods.case2_ball import Case2Ball
from raycib.methods.cib import CIB
from raycib.methods.o_lora import OLoRA
from raycib.methods.safe_lora import SafeLoRA
from raycib.methods.salora import SaLoRA


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
