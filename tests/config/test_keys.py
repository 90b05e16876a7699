"""Names on disk never move: keys of what is stored, and the store's folders, are those of the first
store that somebody filled. `golden/keys.json` was written once and is only ever added to."""

import json
from pathlib import Path
from typing import Any

import pytest
from menu import METHODS
from spec_examples import (
    BENCHMARK,
    DERIVED,
    EXAMPLES,
    MODEL,
    ON_ANOTHER,
    ROWS,
    STAGE,
    TASK,
    every_spec,
    key_of,
)

from raycib.config import (
    MADE,
    EvalSpec,
    JudgeSpec,
    LoRASpec,
    PlainLoRA,
    RunSpec,
    StageSpec,
)
from raycib.config.plan import make_plan
from raycib.data.rows import Row
from raycib.evals import alone
from raycib.evals.answers import answers_key
from raycib.evals.judges import verdict_key
from raycib.methods.cib import CIB
from raycib.models.reference import reference_key
from raycib.runtime.token_counts import TokenCounts
from raycib.store import kinds
from raycib.studies.tradeoff.jobs import AnswerTokens, LandscapeSpec
from raycib.studies.tradeoff.measure import GapSpec

GOLDEN = json.loads((Path(__file__).parent / "golden" / "keys.json").read_text())
PARENT = StageSpec(model=MODEL, task=TASK)
GAPS = GapSpec(alignment=ROWS, task=ROWS)
EVALS = EvalSpec(harmful=ROWS, held_out=ROWS, measures=(GAPS,))
GUARD = JudgeSpec(
    kind="guard", source="guard", weights="g" * 64, tokenizer="k" * 64, categories=("S1", "S2"),
    prefix="\n\n", profile="llama-guard-3", form="f" * 64,
)  # fmt: skip
ENDPOINT = JudgeSpec(kind="endpoint", source="https://judge.example", weights="gpt", form="e" * 64)


def stage_of(method: Any) -> StageSpec:
    """As a grid makes it: on top of another where the method is about that, or derived from it."""
    below = {"parent": PARENT} if method.derived or method.stacked else {}
    return StageSpec(model=MODEL, task=TASK, method=method, fresh=method.stacked, **below)


def found() -> dict[str, Any]:
    """What `golden/keys.json` holds, computed anew."""
    words = BENCHMARK.model_copy(update={"in_words": True})
    evals = {
        "whole": EVALS.key,
        "measures": EVALS.measures_key(PARENT.key),
        "gaps": GAPS.stored_key(PARENT.key),
        "answers": answers_key(PARENT.key, ROWS, "vllm"),
        "answers by transformers": answers_key(PARENT.key, ROWS, "transformers"),
        "asked alone": alone._key([alone.Pick(PARENT.key, ROWS, 3)], "vllm"),
        "lm-eval": BENCHMARK.stored_key(PARENT.key, "vllm"),
        "lm-eval in words": words.stored_key(PARENT.key, "vllm"),
        "a point": PARENT.point_key(7),
    }
    rounded, chatml = (
        MODEL.model_copy(update=one) for one in ({"dtype": "bfloat16"}, {"template": "chatml"})
    )
    rows = {
        "asked": ROWS.key,
        "task": TASK.key,
        "answer tokens": AnswerTokens(MODEL, TASK).stored_key,
        "lengths": TokenCounts(MODEL, "", {})._key([Row("two and two?", "four")]),
        "reference": reference_key(MODEL, TASK.rows, 64, ("mean_response", "final_norm")),
        "tokens' reference": reference_key(rounded, TASK.rows, 64, ("all_states", "final_norm")),
        "answer tokens of ChatML": AnswerTokens(chatml, TASK).stored_key,
    }
    whole = StageSpec(model=MODEL, task=TASK, lora=None)
    made = MODEL.model_copy(update={"weights": whole.key, "source": f"{MADE}{whole.key}@there"})
    models = {"given": MODEL.key, "made": made.key}
    child = STAGE.model_copy(update={"parent": STAGE, "method": CIB(lam=0)})
    fresh = ON_ANOTHER.model_copy(update={"fresh": True})
    chained = {"child at zero": child.key, "fresh child": fresh.key, "derived": DERIVED.key}
    chained["a whole model"] = whole.key
    landscape = LandscapeSpec(what="lipschitz", model=MODEL, rows=ROWS, lora=LoRASpec())
    run = RunSpec(stages=(PARENT,), evals=EVALS)
    plan = make_plan([run], lambda _: False, lambda *_: False, 1)
    return {
        "stages": {name: stage_of(method).key for name, method in METHODS.items()}
        | {"a whole model": whole.key},
        "evals": evals,
        "rows": rows,
        "models": models,
        "judges": {
            "guard": GUARD.key,
            "endpoint": ENDPOINT.key,
            "verdict": verdict_key(GUARD.key, "a", "b"),
        },
        "landscape": landscape.key,
        "group": plan.levels[0][0].name,
        "examples": {kind.__name__: key_of(EXAMPLES[kind]) for kind in every_spec()} | chained,
        "folders": {n: value for n, value in vars(kinds).items() if n.isupper()},
    }


@pytest.mark.parametrize("part", GOLDEN)
def test_names_on_disk_are_as_ever(part: str):
    now = found()[part]
    pinned = {name: now.get(name) for name in GOLDEN[part]} if isinstance(now, dict) else now
    assert pinned == GOLDEN[part], "see RESULTS_VERSION: every stored result would be lost"


@pytest.mark.parametrize("one", [PARENT, EVALS, MODEL, TASK, ROWS, GUARD])
def test_a_class_may_be_renamed(one: Any):
    """A key hashes what the class calls itself on disk, not what Python calls it."""
    renamed = type("Another", (type(one),), {})
    assert renamed.model_validate(dict(one)).key == one.key


def test_a_method_enters_by_its_kind():
    """So has no key of its own to move."""
    assert not hasattr(PlainLoRA, "key_name")
    assert PlainLoRA().identity() == {"kind": "lora"}
