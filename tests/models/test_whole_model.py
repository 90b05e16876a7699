"""Stages that train all weights of a model, and the stages that start from what they make.

They stand in for the alignment of a model: a base goes in, an aligned model comes out, and every
cell of a sweep is fine-tuned from it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plain
import pytest
import tiny
import torch
from conftest import Ask
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from raycib.config import EvalSpec, LoRASpec, ModelSpec, RunSpec, StageSpec, TrainerSpec
from raycib.config.grid import single_task
from raycib.config.plan import AdapterGroup, Job, Plan, make_plan, waits
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.methods.safe_lora import SafeLoRA
from raycib.model_files import TOKENIZER, describe, find, fingerprint, verified
from raycib.models import load_model, load_tokenizer
from raycib.store import Store
from raycib.store.kinds import CHECKPOINTS
from raycib.training.group import STAGES, Loaded, load, open_slot, train_group
from raycib.training.loop import take_step
from raycib.training.slot import Slot
from raycib.training.workers import Workers

CPU = torch.device("cpu")
ALONE = Workers()
TRAINER = TrainerSpec(
    learning_rate=1e-3, batch_size=10, warmup_steps=2, epochs=2, max_grad_norm=0.5, weight_decay=0.1
)
WEIGHTS = "model.safetensors"


def whole_stage(folder: Path, **overrides: object) -> StageSpec:
    """25 rows in batches of 10, twice: 6 steps."""
    return tiny.make_stage(folder, 25, **{"lora": None, "trainer": TRAINER, **overrides})


def group_of(*stages: StageSpec) -> AdapterGroup:
    return AdapterGroup(name="group", jobs=tuple(Job(stage=stage, evals=()) for stage in stages))


def trained(stage: StageSpec, store: Store) -> Path:
    """The stage's folder in the store."""
    tiny.train_chain((stage,), store)
    record = store.get(STAGES, stage.key)
    assert record
    return record.folder


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageSpec, Store]:
    """A model that a stage made, and the store that it is in."""
    stage, store = whole_stage(tiny_folder), Store(tmp_path_factory.mktemp("made"))
    trained(stage, store)
    return stage, store


def ids() -> Tensor:
    return torch.arange(36).reshape(3, 12) + 3


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids()).logits


# What is trained


def test_two_steps_are_those_of_torch_s_adamw_on_the_whole_model(tiny_folder: Path, tmp_path: Path):
    """Against transformers alone in float64, one row at a time. GRADIENT: float32 carries 6e-8, and
    loses a factor of some tens in sums over 10 rows through 2 layers. UPDATE: Adam's first steps
    are signs of gradients, and one within rounding of zero may go the other way."""
    gradient, update = 1e-4, 2e-2
    stage = whole_stage(tiny_folder)
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, Store(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model").double()
    weights = dict(model.named_parameters())
    assert slot.parameters.keys() == weights.keys()
    assert all(p.requires_grad and p.dtype == torch.float32 for p in slot.parameters.values())
    optimiser = torch.optim.AdamW(weights.values(), lr=1.0, betas=(0.9, 0.999), weight_decay=0.1)
    start = {name: p.detach().clone() for name, p in weights.items()}
    for step in range(2):
        rows = [slot.task.data[i] for i in slot.task.rows(step)]
        take_step(loaded.adapters, [slot], ALONE, 4)
        optimiser.zero_grad()
        total, count = 0.0, plain.tokens_of(rows)
        for row in rows:
            tokens = torch.tensor([[*row.prompt, *row.response]])
            labels = tokens.clone()
            labels[:, : len(row.prompt)] = -100
            loss = model(input_ids=tokens, labels=labels).loss * len(row.response) / count
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), 0.5)
        optimiser.param_groups[0]["lr"] = 1e-3 * (step + 1) / 2
        optimiser.step()
        entry = slot.history[-1]
        assert entry.keys() == {"step", "grad_norm", "task"}
        assert entry["task"] == pytest.approx(total, rel=1e-5)
        assert entry["grad_norm"] == pytest.approx(float(norm), rel=gradient)
        assert norm > 0.5, "so it was clipped"
        if step == 0:
            found = {n: p.grad for n, p in slot.parameters.items() if p.grad is not None}
            clipped = {n: p.grad for n, p in weights.items() if p.grad is not None}
            assert found.keys() == clipped.keys() == weights.keys()
            assert distance(found, clipped) < gradient
    moved = {n: p.detach() - start[n] for n, p in slot.parameters.items()}
    assert distance(moved, {n: p.detach() - start[n] for n, p in weights.items()}) < update
    assert min(float(change.norm()) for change in moved.values()) > 0, "every weight moves"


def rounded_slot(folder: Path, store: Path, **trainer: Any) -> tuple[Loaded, Slot]:
    """A stage before its first step, that computes in bfloat16."""
    how = TRAINER.model_copy(update={"precision": "bfloat16", **trainer})
    stage = whole_stage(folder, trainer=how)
    loaded = load([stage], CPU)
    return loaded, open_slot(0, stage, loaded, Store(store))


def test_in_bfloat16_gradients_are_those_of_the_rounded_weights(tiny_folder: Path, tmp_path: Path):
    """Against transformers alone, the model rounded to bfloat16, one row a pass, passes added in
    float32: to the bit where raycib has a row a pass, too. Weights stay float32."""
    loaded, slot = rounded_slot(tiny_folder, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model", dtype=torch.bfloat16)
    rows = [slot.task.data[i] for i in slot.task.rows(0)]
    count, sums = plain.tokens_of(rows), dict[str, Tensor]()
    for row in rows:
        ids, prompt = torch.tensor([[*row.prompt, *row.response]]), len(row.prompt)
        logits = model(input_ids=ids).logits[0, prompt - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, prompt:], reduction="sum") / count
        model.zero_grad()
        loss.backward()
        for name, one in model.named_parameters():
            assert one.grad is not None
            sums[name] = sums.get(name, 0) + one.grad.float()
    take_step(loaded.adapters, [slot], ALONE, 1)
    norm = sum(float(one.norm()) ** 2 for one in sums.values()) ** 0.5
    assert slot.history[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    found = {n: p.grad for n, p in slot.parameters.items() if p.grad is not None}
    assert {one.dtype for one in slot.parameters.values()} == {torch.float32}
    clipped = {name: one * (0.5 / norm) for name, one in sums.items()}
    assert distance(found, clipped) < 1e-3


def test_steps_too_small_for_bfloat16_are_not_lost(tiny_folder: Path, tmp_path: Path):
    """Norms begin at 1, below which bfloat16 has steps of 2^-8: what moves one by 1e-3 at a time is
    rounded away where weights are bfloat16. Here ten steps on the same rows add up to some 1e-2,
    and the weight that is read follows."""
    loaded, slot = rounded_slot(
        tiny_folder, tmp_path, batch_size=25, warmup_steps=0, epochs=10, weight_decay=0
    )
    own = slot.parameters["model.norm.weight"]
    read = dict(loaded.adapters.model.named_parameters())["model.norm.weight"]
    start = own.detach().clone()
    assert (start == 1).all() and read.dtype == torch.bfloat16
    take_step(loaded.adapters, [slot], ALONE, 25)
    first = own.detach() - start
    assert 0.9e-3 < float(first.abs().max()) < 1.1e-3
    assert (own[own < 1].bfloat16() == 1).all()
    while slot.active:
        take_step(loaded.adapters, [slot], ALONE, 25)
    down = own.detach() < 1 - 5e-3
    assert down.any() and (read[down] < 1).all()


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    a, b = (plain.flat({name: t[name] for name in sorted(t)}).double() for t in (one, other))
    return float((a - b).norm() / b.norm())


def test_micro_batches_change_nothing_but_the_order_of_sums(tiny_folder: Path, tmp_path: Path):
    stage = whole_stage(tiny_folder)
    found = []
    for micro in (10, 3):
        loaded = load([stage], CPU)
        slot = open_slot(0, stage, loaded, Store(tmp_path))
        take_step(loaded.adapters, [slot], ALONE, micro)
        found.append({n: p.grad for n, p in slot.parameters.items() if p.grad is not None})
    assert distance(found[1], found[0]) < 1e-5


# What is exported


def test_the_export_is_a_model_folder_that_computes_the_same(tiny_folder: Path, tmp_path: Path):
    """transformers and the tokenizer find all they need; to the bit, as nothing is rounded."""
    stage = whole_stage(tiny_folder)
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, Store(tmp_path))
    for _ in range(2):
        take_step(loaded.adapters, [slot], ALONE, 10)
    loaded.adapters.export(0, tmp_path / "out", stage.model.source)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(again), logits(loaded.adapters.model))
    before = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    assert (logits(again) - logits(before)).abs().max() > 1e-3
    assert fingerprint(tmp_path / "out", TOKENIZER) == stage.model.tokenizer
    tokenizer = load_tokenizer(str(tmp_path / "out"))
    assert tokenizer("w1 w2")["input_ids"] == load_tokenizer(stage.model.source)("w1 w2").input_ids
    assert describe(str(tmp_path / "out")).tokenizer == stage.model.tokenizer


def names_in(file: Path) -> set[str]:
    with safe_open(file, "pt") as opened:
        return set(opened.keys())


def test_tied_weights_are_trained_and_stored_once(made):
    stage, store = made
    folder = trained(stage, store)
    assert "lm_head.weight" not in names_in(folder / WEIGHTS)
    assert "model.embed_tokens.weight" in names_in(folder / WEIGHTS)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head.weight" not in load([stage], CPU).adapters.parameters_of(0)


def test_weights_that_are_not_tied_are_both_trained_and_stored(tmp_path: Path):
    tiny.make_model(tmp_path / "model")
    config = LlamaConfig.from_pretrained(tmp_path / "model")
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    store = Store(tmp_path / "store")
    folder = trained(whole_stage(tmp_path), store)
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    after = AutoModelForCausalLM.from_pretrained(folder)
    for part in ("lm_head", "model.embed_tokens"):
        one, other = (m.get_submodule(part).weight for m in (before, after))
        assert not torch.equal(one, other)
    assert not torch.equal(after.lm_head.weight, after.model.embed_tokens.weight)


def test_a_bfloat16_model_is_trained_in_float32_and_exported_as_it_came(tmp_path: Path):
    """Small steps would be lost in bfloat16's 8 bits; what is stored is of the type that is loaded
    again."""
    tiny.make_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    stage = whole_stage(tmp_path, model=describe(str(tmp_path / "model"), "bfloat16"))
    assert {p.dtype for p in load([stage], CPU).adapters.parameters_of(0).values()} == {
        torch.float32
    }
    store = Store(tmp_path / "store")
    folder = trained(stage, store)
    with safe_open(folder / WEIGHTS, "pt") as opened:
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {torch.bfloat16}  # noqa: SIM118
    spec = stage.made_model(store.root)
    assert spec.dtype == "bfloat16"
    assert load_model(spec, CPU).dtype == torch.bfloat16
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


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


def copy_of(made: tuple[StageSpec, Store], root: Path) -> tuple[StageSpec, Store]:
    """The same model in a store that may be damaged."""
    stage, store = made
    record, own = store.get(STAGES, stage.key), Store(root)
    assert record

    def write(folder: Path) -> None:
        for name in record.files:
            (folder / name).write_bytes(record.path(name).read_bytes())

    own.put(STAGES, stage.key, write, record.about)
    return stage, own


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


# Killed and started again


class Killed(Exception):
    """Stands for SIGKILL: nothing of the process goes on."""


def killed_at(step: int) -> Callable[[Sequence[Slot]], None]:
    def progress(slots: Sequence[Slot]) -> None:
        if slots[0].step == step:
            raise Killed

    return progress


def test_killed_and_resumed_is_undisturbed(made, tiny_folder: Path, tmp_path: Path):
    """Killed after step 5, saved at step 4: the same files as in one go. What a checkpoint holds
    is read back by another process's fresh model."""
    stage, undisturbed = made
    own, group = Store(tmp_path), group_of(stage)
    with pytest.raises(Killed):
        train_group(group, load([stage], CPU), own, ALONE, 16, 2, killed_at(5))
    assert own.keys(CHECKPOINTS) == ["group-00000004"]
    assert own.get(STAGES, stage.key) is None
    seen: list[int] = []
    progress = lambda slots: seen.append(slots[0].step)  # noqa: E731
    assert train_group(group, load([stage], CPU), own, ALONE, 16, 2, progress) == {}
    assert seen == [5, 6]
    one, other = own.get(STAGES, stage.key), undisturbed.get(STAGES, stage.key)
    assert one
    assert other
    assert one.files == other.files
    assert own.keys(CHECKPOINTS) == []


@pytest.mark.parametrize("call", [2, 7, 14, 21])
def test_a_real_kill_while_files_are_written_changes_nothing(
    call: int, made, tmp_path: Path, ask_trainer: Ask
):
    """SIGKILL before the call-th fsync or rename of some thirty, once more at the second one after
    starting again, then undisturbed."""
    stage, undisturbed = made
    group = group_of(stage).model_dump(mode="json")
    ask = {"group": group, "store": str(tmp_path), "every": 2, "log": str(tmp_path / "log")}
    for number in (call, 1):
        assert ask_trainer(how="killed_at", call=number, **ask)["status"] == 9
    assert ask_trainer(how="once", **ask)["status"] == 0
    one, other = Store(tmp_path).get(STAGES, stage.key), undisturbed.get(STAGES, stage.key)
    assert one
    assert other
    assert one.files == other.files


def test_two_workers_make_the_model_of_one(made, tmp_path: Path, ask_trainer: Ask):
    """Two real processes joined by gloo, each with half the rows: sums in another order, so weights
    within 1e-3 of the size of what training changed; both workers end with the same bytes."""
    stage, store = made
    group = group_of(stage).model_dump(mode="json")
    ask = {"group": group, "store": str(tmp_path), "every": 2, "log": str(tmp_path / "log")}
    assert ask_trainer(how="together", micro=4, **ask)["statuses"] == [0, 0]
    first, second = (tmp_path / f"worker-{rank}-{stage.key}" for rank in (0, 1))
    assert first.read_bytes() == second.read_bytes()
    start = load_file(find(stage.model.source) / WEIGHTS)
    one, two = (
        {name: value - start[name] for name, value in load_file(folder / WEIGHTS).items()}
        for folder in (trained(stage, store), trained(stage, Store(tmp_path)))
    )
    assert distance(two, one) < 1e-3


def test_a_group_that_was_done_is_not_done_again(made, tmp_path: Path):
    """As after a kill between the last write and the report: the stored model is found, and is what
    the group then has in memory."""
    stage, store = copy_of(made, tmp_path)
    seen: list[int] = []
    loaded = load([stage], CPU)
    failed = train_group(group_of(stage), loaded, store, ALONE, 16, 2, lambda _: seen.append(1))
    assert (failed, seen) == ({}, [])
    stored = AutoModelForCausalLM.from_pretrained(trained(stage, store))
    assert torch.equal(logits(loaded.adapters.model), logits(stored))


def test_a_model_that_stops_being_finite_is_not_stored(tiny_folder: Path, tmp_path: Path):
    """Steps of 1e30 overflow at once."""
    wild = TRAINER.model_copy(update={"learning_rate": 1e30})
    stage, own = whole_stage(tiny_folder, trainer=wild), Store(tmp_path)
    failed = train_group(group_of(stage), load([stage], CPU), own, ALONE, 16, 1000)
    assert "not finite" in failed[stage.key]
    assert own.get(STAGES, stage.key) is None


def test_the_history_of_a_made_model_is_kept(made):
    stage, store = made
    record = store.get(STAGES, stage.key)
    assert record
    history = json.loads(record.path("history.json").read_text())
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["task"] < history[0]["task"]
    assert StageSpec.model_validate(record.about["spec"]) == stage


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
