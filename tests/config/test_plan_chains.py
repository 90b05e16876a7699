"""Rows of a comparison that are more than one stage, or less."""

import pytest
from grids import SAFE_LORA, SAFETY, TRAINER, keys, orders, plan, rows_of
from specs import TASKS

from raycib.config import PlainLoRA, TrainerSpec
from raycib.config.grid import Variant
from raycib.config.plan import waits
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.methods.o_lora import OLoRA
from raycib.methods.vaccine import Vaccine


def test_a_method_without_needs_is_a_single_stage():
    (run,) = rows_of(CIB())
    (stage,) = run.stages
    assert (stage.method, stage.parent, stage.fresh) == (CIB(), None, False)
    assert (stage.trainer, run.method, run.compared) == (TRAINER, CIB(), None)


def test_safe_lora_shares_the_training_of_plain_lora():
    """LoRA and two thresholds are three cells and one training: the other two are derived."""
    other = SAFE_LORA.model_copy(update={"threshold": 0.4})
    runs = rows_of(PlainLoRA(), SAFE_LORA, other)
    assert [[stage.method.kind for stage in run.stages] for run in runs] == [
        ["lora"],
        ["lora", "safe_lora"],
        ["lora", "safe_lora"],
    ]
    (lora,) = runs[0].stages
    assert all(run.stages[0].key == lora.key for run in runs)
    assert all(run.final.parent == lora for run in runs[1:])
    one = plan(runs)
    assert (one.asked, one.stages, one.shared) == (5, 3, 2)
    assert keys(one) == [[lora.key], [run.final.key for run in runs[1:]]]
    steps = sum(job.stage.steps for level in one.levels for group in level for job in group.jobs)
    assert steps == lora.steps == 4
    assert waits(one.levels[0]) == []
    (why,) = waits(one.levels[1])
    assert why.startswith("safe_lora is derived from its parent")


@pytest.mark.parametrize("off", [{"threshold": -1.0}, {"choose": "number", "number": 0}])
def test_safe_lora_at_zero_strength_is_the_stage_of_plain_lora(off: dict[str, object]):
    lora, zero = rows_of(PlainLoRA(), SAFE_LORA.model_copy(update=off))
    assert zero.stages == lora.stages
    assert zero.key == lora.key
    assert zero.method == PlainLoRA()
    assert len(keys(plan([lora, zero]))[0]) == 1


def test_o_lora_after_safety_data_is_trained_on_top_of_that_stage():
    """And shares it with plain LoRA trained on top of it too, which is its strength zero."""
    plain, own, zero = rows_of(
        *(Variant(method, safety=SAFETY) for method in (PlainLoRA(), OLoRA(), OLoRA(lam=0)))
    )
    first, second = own.stages
    assert (first.task, first.method, first.parent, first.fresh) == (
        SAFETY,
        PlainLoRA(),
        None,
        False,
    )
    assert (second.task, second.method_in_effect, second.parent, second.fresh) == (
        TASKS[0],
        OLoRA(),
        first,
        True,
    )
    assert plain.stages[0] == first
    assert zero.final.key == plain.final.key != second.key
    one = plan([plain, own, zero])
    assert (one.asked, one.stages) == (6, 3)
    assert keys(one) == [[first.key], [plain.final.key, second.key]]
    assert second.exported_rank == 64
    assert {why.partition(" ")[0] for why in waits(one.levels[1])} == {"lora", "o_lora"}


def test_a_first_stage_may_be_by_another_method_with_settings_of_its_own():
    """Vaccine as published: an alignment stage on safety data, then plain LoRA on the task. The
    cell stands for Vaccine, though its last stage is plain LoRA's."""
    official = Vaccine(rho=2.0, ascent_steps=1, norm="batch")
    tuned, slow = TrainerSpec(learning_rate=1e-3), TrainerSpec(learning_rate=1e-5)
    variant = Variant(
        official, "Vaccine (official)", SAFETY, official, PlainLoRA(), trainer=slow,
        first_trainer=tuned,
    )  # fmt: skip
    (run,) = rows_of(variant)
    first, second = run.stages
    assert (first.method, first.task, first.trainer) == (official, SAFETY, tuned)
    assert (second.method, second.task, second.trainer) == (PlainLoRA(), TASKS[0], slow)
    assert second.parent == first
    assert second.fresh
    assert (run.method, run.compared, run.label) == (official, official, "Vaccine (official)")
    assert first.steps == 1


def test_what_a_cell_is_called_and_stands_for_is_no_part_of_its_key():
    one, other = rows_of(Variant(CIB(), "ours"), CIB())
    assert one.label == "ours"
    assert one.key == other.key
    assert plan([one, other]).stages == 1


def test_two_rows_that_would_be_called_the_same_are_refused():
    """Their cells would be seeds of one row. At two strengths they are two rows, and settings of
    a method tell rows without a label apart; what comes before the task, or a trainer, does not."""
    hard = CIB(draw="hardest")
    with pytest.raises(UserError, match="two rows are called 'ours' at strength 5"):
        rows_of(Variant(CIB(), "ours"), Variant(hard, "ours"))
    with pytest.raises(UserError, match="two rows are called 'LoRA' at strength 0"):
        rows_of(PlainLoRA(), Variant(PlainLoRA(), trainer=TrainerSpec(batch_size=8)))
    assert len(rows_of(CIB(), hard)) == 2
    assert len(rows_of(Variant(CIB(), "ours"), Variant(CIB(lam=1), "ours"))) == 2
    assert len(rows_of(Variant(CIB(), "ours"), Variant(hard, "theirs"))) == 2


def test_chains_are_made_for_every_seed():
    runs = rows_of(SAFE_LORA, Variant(OLoRA(), safety=SAFETY), seeds=3)
    assert [run.final.seed for run in runs] == [0, 1, 2, 0, 1, 2]
    for run in runs:
        assert {stage.seed for stage in run.stages} == {run.final.seed}
    assert [len(level) for level in keys(plan(runs))] == [6, 6]


def test_whatever_goes_on_from_a_parent_waits_for_it():
    levels = plan(orders(TASKS[:2])).levels
    assert waits(levels[0]) == []
    assert waits(levels[1]) == ["lora goes on from its parent's adapter"]
