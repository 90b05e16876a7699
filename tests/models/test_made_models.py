"""Models that a stage makes: started from, and in plans, where they come first."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from whole_models import CPU, TRAINER, WEIGHTS, copy_of, logits, trained, whole_stage

from raycib.config import EvalSpec, LoRASpec, ModelSpec, RunSpec, StageSpec
from raycib.config.grid import single_task
from raycib.config.plan import Plan, make_plan, waits
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.methods.safe_lora import SafeLoRA
from raycib.model_files import find, verified
from raycib.models import load_model
from raycib.training.group import STAGES, load

# Starting from a model that a stage makes


def test_a_made_model_is_known_before_it_exists_and_wherever_it_will_be(tiny_folder: Path):
    stage = whole_stage(tiny_folder)
    one, other = stage.made_model("/one/store"), stage.made_model("s3://bucket/other")
    assert one.source == f"stage:{stage.key}@/one/store"
    assert one.source != other.source
    assert one.key == other.key
    children = [tiny.make_stage(tiny_folder, model=model) for model in (one, other)]
    assert children[0].key == children[1].key
    assert one.tokenizer == stage.model.tokenizer
    assert one.dtype == stage.model.dtype


@pytest.mark.parametrize(
    "overrides",
    [
        {"seed": 1},
        {"trainer": TRAINER.model_copy(update={"learning_rate": 2e-3})},
        {"model": ModelSpec(source="other", weights="o" * 64, tokenizer="t" * 64)},
    ],
)
def test_another_recipe_makes_another_model(overrides: dict[str, object], tiny_folder: Path):
    one, other = whole_stage(tiny_folder), whole_stage(tiny_folder, **overrides)
    assert one.made_model("here").key != other.made_model("here").key
    children = [tiny.make_stage(tiny_folder, model=s.made_model("here")) for s in (one, other)]
    assert children[0].key != children[1].key


def test_a_stage_that_trains_all_weights_is_not_the_one_that_trains_an_adapter(tiny_folder: Path):
    one = whole_stage(tiny_folder)
    assert one.key != whole_stage(tiny_folder, lora=LoRASpec(rank=4, alpha=8)).key
    assert (one.rank, one.scale, one.exported_rank) == (0, 1.0, 0)
    again = StageSpec.model_validate_json(one.model_dump_json())
    assert again == one
    assert again.lora is None


def test_an_adapter_is_trained_on_the_model_that_was_made(made, tiny_folder: Path):
    """Through the store: the frozen base of the adapter's stage is the made model, bit by bit."""
    stage, store = made
    child = tiny.make_stage(tiny_folder, model=stage.made_model(store.root))
    assert verified(child.model) == find(child.model.source) == trained(stage, store)
    model = AutoModelForCausalLM.from_pretrained(trained(stage, store))
    loaded = load([child], CPU)
    with loaded.adapters.disabled():
        assert torch.equal(logits(loaded.adapters.model), logits(model))
    tiny.train_chain((child,), store)
    other = tiny.make_stage(tiny_folder)
    tiny.train_chain((other,), store)
    one, two = (tiny.adapter_of(store, s) for s in (child, other))
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_a_made_model_can_be_trained_whole_again(made, tiny_folder: Path):
    stage, store = made
    second = whole_stage(tiny_folder, model=stage.made_model(store.root), seed=3)
    after = AutoModelForCausalLM.from_pretrained(trained(second, store))
    before = AutoModelForCausalLM.from_pretrained(trained(stage, store))
    assert not torch.equal(logits(after), logits(before))
    assert second.made_model(store.root).tokenizer == stage.model.tokenizer


@pytest.mark.parametrize("trouble", ["a flipped bit", "a missing file", "no model", "no store"])
def test_a_made_model_that_is_damaged_or_gone_is_told(trouble: str, made, tmp_path: Path):
    stage, store = copy_of(made, tmp_path / "store")
    record = store.get(STAGES, stage.key)
    assert record
    spec = stage.made_model(store.root)
    match trouble:
        case "a flipped bit":
            raw = bytearray(record.path(WEIGHTS).read_bytes())
            raw[len(raw) // 2] ^= 1
            record.path(WEIGHTS).write_bytes(raw)
        case "a missing file":
            record.path("config.json").unlink()
        case "no model":
            store.discard(STAGES, stage.key)
        case "no store":
            spec = stage.made_model(str(tmp_path / "elsewhere"))
    for read in (lambda: find(spec.source), lambda: load_model(spec, CPU)):
        with pytest.raises(
            UserError, match=f"the model of stage {stage.short} is not in /"
        ) as told:
            read()
        assert spec.source.partition("@")[2] in str(told.value)
        assert "it failed, or was removed" in str(told.value)


# Groups and levels


def test_a_model_in_training_shares_its_memory_with_nobody(tiny_folder: Path):
    whole, adapter = whole_stage(tiny_folder), whole_stage(tiny_folder, lora=LoRASpec(rank=2))
    for stages in ([whole, adapter], [adapter, whole], [whole, whole]):
        with pytest.raises(ValueError, match="stages that train all weights cannot share a group"):
            load(stages, CPU)
    with pytest.raises(IndexError, match="slot 1 of a group with slots 0 to 0"):
        load([whole], CPU).adapters.parameters_of(1)


MODEL = ModelSpec(source="base", weights="w" * 64, tokenizer="t" * 64)


def maker_of(folder: Path, seed: int = 0) -> StageSpec:
    return whole_stage(folder, model=MODEL, seed=seed)


def grid_on(alignment_stages: Sequence[StageSpec], folder: Path, *more: object) -> list[RunSpec]:
    """Plain LoRA, CIB and Safe LoRA on the models that `alignment_stages` make."""
    task, evals = maker_of(folder).task, tiny.make_evals(folder)
    methods = [CIB(lam=0), CIB(lam=1), SafeLoRA(base=MODEL)]
    models = [alignment_stage.made_model("/store") for alignment_stage in alignment_stages]
    return single_task(models, [(task, evals)], methods, [0], LoRASpec(), TRAINER, alignment_stages)


def plan(
    runs: list[RunSpec],
    trained: Callable[[StageSpec], bool] = lambda _: False,
    measured: Callable[[StageSpec, EvalSpec], bool] = lambda stage, evals: False,
    groups_at_once: int = 1,
) -> Plan:
    return make_plan(runs, trained, measured, groups_at_once)


def test_what_makes_a_model_comes_a_level_before_all_that_start_from_it(tiny_folder: Path):
    """Maker; LoRA and CIB side by side; Safe LoRA, which is derived from LoRA's adapter."""
    alignment_stage = maker_of(tiny_folder)
    runs = grid_on([alignment_stage], tiny_folder)
    assert [run.stages[0] for run in runs] == [alignment_stage] * 3
    found = plan(runs)
    stages = [[job.stage for group in level for job in group.jobs] for level in found.levels]
    kinds = [[stage.method_in_effect.kind for stage in level] for level in stages]
    assert kinds == [["lora"], ["lora", "cib"], ["safe_lora"]]
    assert stages[0] == [alignment_stage]
    assert all(one.model == alignment_stage.made_model("/store") for one in stages[1] + stages[2])
    assert waits(found.levels[0]) == []
    assert waits(found.levels[1]) == ["the model that all start from is made first"]
    assert waits(found.levels[2]) == [
        "safe_lora is derived from its parent's adapter, without training"
    ]
    # The chains name the maker three times, and Safe LoRA's names LoRA's stage once more.
    assert (found.stages, found.asked, found.shared) == (4, 7, 3)


def test_nothing_is_measured_on_the_maker_itself(tiny_folder: Path):
    """The model that it makes is what every cell is compared with, and is measured as such."""
    alignment_stage = maker_of(tiny_folder)
    runs = grid_on([alignment_stage], tiny_folder)
    assert all(run.adapters == run.stages[1:] for run in runs)
    jobs = [job for level in plan(runs).levels for group in level for job in group.jobs]
    assert [len(job.evals) for job in jobs] == [0, 1, 1, 1]
    later = plan(runs, trained=lambda stage: stage == alignment_stage)
    assert [len(level) for level in later.levels] == [1, 1], "a trained maker is no work"
    assert waits(later.levels[0]) == ["the model that all start from is made first"]
    assert later.reused == 1


def test_two_models_are_made_side_by_side_in_groups_of_their_own(tiny_folder: Path):
    alignment_stages = [maker_of(tiny_folder, seed) for seed in range(3)]
    runs = grid_on(alignment_stages, tiny_folder)
    for at_once in (1, 2, 8):
        found = plan(runs, groups_at_once=at_once)
        first = [[job.stage for job in group.jobs] for group in found.levels[0]]
        assert sorted(stage.key for (stage,) in first) == sorted(
            alignment_stage.key for alignment_stage in alignment_stages
        )
        for group in found.levels[1]:
            assert len({job.stage.model.key for job in group.jobs}) == 1
    alongside = plan([*runs, RunSpec(stages=(tiny.make_stage(tiny_folder, model=MODEL),),
                                     evals=runs[0].evals)])  # fmt: skip
    assert sorted(len(group.jobs) for group in alongside.levels[0]) == [1, 1, 1, 1]


def test_a_model_may_be_made_from_one_that_is_made(tiny_folder: Path):
    first = maker_of(tiny_folder)
    second = whole_stage(tiny_folder, model=first.made_model("/store"), seed=1)
    child = tiny.make_stage(tiny_folder, model=second.made_model("/store"))
    run = RunSpec(stages=(first, second, child), evals=tiny.make_evals(tiny_folder))
    assert run.adapters == (child,)
    found = [[job.stage for group in level for job in group.jobs] for level in plan([run]).levels]
    assert found == [[first], [second], [child]]


def test_only_cells_on_a_made_model_wait_for_it(tiny_folder: Path):
    """`made_by` belongs to the model that it makes, and to no other."""
    alignment_stage, task = maker_of(tiny_folder), maker_of(tiny_folder).task
    evals = tiny.make_evals(tiny_folder)
    models = [MODEL, alignment_stage.made_model("/store")]
    runs = single_task(
        models, [(task, evals)], [CIB(lam=1)], [0], LoRASpec(), TRAINER, [alignment_stage]
    )
    assert [len(run.stages) for run in runs] == [1, 2]
    assert [len(level) for level in plan(runs).levels] == [2, 1]


def test_a_cell_is_named_as_it_is_without_a_maker(tiny_folder: Path):
    """The maker is how the model came to be, no part of the method."""
    alignment_stage = maker_of(tiny_folder)
    for run in grid_on([alignment_stage], tiny_folder):
        assert run.final.lora is not None
        assert run.method.kind in ("lora", "cib", "safe_lora")
        assert run.label == ""
