"""What follows of a stage's settings: its steps, its rank, what it is measured by."""

from typing import Any

import pytest
from spec_examples import (
    DERIVED,
    EVALS,
    GAPS,
    MODEL,
    ON_ANOTHER,
    ROWS,
    SAFETY,
    STAGE,
    TASK,
    changed,
)

from raycib.config import (
    LoRASpec,
    PlainLoRA,
    RunSpec,
    StageSpec,
    TrainerSpec,
)
from raycib.methods.o_lora import OLoRA
from raycib.methods.random_subset import RandomSubset
from raycib.methods.safety_mix import SafetyMix
from raycib.methods.salora import SaLoRA
from raycib.methods.sbr import SBR


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
