"""What is published loads elsewhere as it was here, says what it is, and holds nothing else."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from raycib.commands.export import export
from raycib.config import EvalSpec, PlainLoRA, RowsSpec, StageSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.data.rows import rows_of
from raycib.errors import UserError
from raycib.evals.answers import Answers, generate_answers
from raycib.evals.in_process import InProcessGenerator
from raycib.evals.refusal_judge import RefusalJudge, describe_refusal_judge
from raycib.evals.scores import harmful_pairs
from raycib.evals.verdicts import VerdictCache
from raycib.methods.cib import CIB
from raycib.metrics import Metric
from raycib.model_files import describe
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.store import Store
from raycib.store.kinds import STAGES
from raycib.training.group import load, train_group
from raycib.training.workers import Workers

CPU = torch.device("cpu")
HARMFUL = 24


class Made(NamedTuple):
    """A store with a trained adapter and its judged answers."""

    store: Store
    stage: StageSpec
    evals: EvalSpec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    store = Store(folder / "runs")
    (stage,) = tiny.make_chain(folder, CIB(lam=1.0, num_negatives=8))
    tiny.train_chain((stage,), store)
    harmful = tiny.make_evals(folder, HARMFUL).harmful.model_copy(update={"name": "harmful"})
    evals = EvalSpec(harmful=harmful, held_out=harmful, engine="transformers")
    model = AutoModelForCausalLM.from_pretrained(stage.model.source)
    tokenizer = AutoTokenizer.from_pretrained(stage.model.source)
    assert stage.lora
    engine = InProcessGenerator(model, tokenizer, max_model_len=64, targets=[stage.lora.targets])
    record = store.get(STAGES, stage.key)
    assert record
    generate_answers(Answers(store), engine, tokenizer, [(stage.key, record.folder, [harmful])])
    judge = describe_refusal_judge()
    cache = VerdictCache(store, judge.key)
    cache.ask(RefusalJudge(), harmful_pairs(Answers(store), stage.key, evals))
    summarise(store, stage, harmful, judge.key)
    return Made(store, stage, evals)


def summarise(store: Store, stage: StageSpec, harmful: RowsSpec, judge: str) -> None:
    """What the sweep would have written: none of 24 refused, which it has no words for."""
    shares = {"hrr": [1] * 24, "accuracy": [1] * 20 + [0] * 4}
    rate = Metric("", "").of
    scores: dict[str, Any] = {name: rate(some).model_dump() for name, some in shares.items()}
    scores |= {"eval_loss": 1.25, "utility": None, "utility_by_probe": {}}
    cell = {"key": stage.key, "method": "cib", "strength": 1.0, "seed": 0, "task": "tiny",
            "model": "tiny", "scores": scores}  # fmt: skip
    summary = {
        "format": 2, "sweep": "a_sweep", "created": "2026-11-26T01:00:00+00:00", "cells": [cell],
        "judge": {"name": "refusal-rule", "key": judge, "profile": "refusal-rule"},
        "model": {"name": "tiny", "weights": stage.model.weights}, "rows": [tiny.set_of(harmful)],
        "aligned": {"scores": {"hrr": rate([0] * 24).model_dump(), "eval_loss": 2.5}},
    }  # fmt: skip
    file = Path(store.root) / "a_sweep" / "summary.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def published(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("hub") / "adapter"
    return export(made.stage.key[:10], made.store.root, to, "org/tiny@v1", with_answers=False)


def test_peft_computes_what_was_trained(made: Made, published: Path) -> None:
    stage = made.stage
    record = made.store.get(STAGES, stage.key)
    assert record
    assert stage.lora
    ours = AutoModelForCausalLM.from_pretrained(stage.model.source)
    slots = AdapterSlots(ours, [LoRAShape(stage.lora.rank, stage.lora.alpha, stage.lora.targets)])
    slots.load(0, record.folder)
    base = AutoModelForCausalLM.from_pretrained(stage.model.source)
    ids = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        plain = base(ids).logits
        with slots.route([(0, 2)]):
            expected = ours(ids).logits
        found = PeftModel.from_pretrained(base, published)(ids).logits
    assert (expected - plain).abs().max() > 1e-2, "it was trained"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_card_says_what_it_is(made: Made, published: Path) -> None:
    """The hub's own client reads its metadata; Wilson's interval of 24 of 24 begins at
    24 / (24 + 1.96²)."""
    card = ModelCard.load(published / "README.md")
    told = card.data
    assert (told.base_model, told.library_name) == ("org/tiny", "peft")
    assert told.eval_results
    results = {one.metric_name: one for one in told.eval_results}
    assert results["Not refused, %"].metric_value == 100
    assert results["Not refused, %"].metric_args == {"n": 24, "interval_95": [86.2, 100.0]}
    assert results["Task loss, nats"].metric_value == 1.25
    text = card.text
    assert "| Not refused, % | 100.0 [86.2, 100.0] | 24 | 0.0 |" in text
    assert "| Task loss, nats | 1.250 |  | 2.500 |" in text
    assert "No judge read the answers" in text
    assert "HRR" not in text
    for said in (made.stage.key, made.stage.model.weights, made.stage.task.rows, "| lam | 1.0 |",
                 "| rank | 4 |", 'from_pretrained("org/tiny", revision="v1", dtype="float32")',
                 "torch "):  # fmt: skip
        assert said in text, said


def test_nothing_else_is_published(made: Made, published: Path) -> None:
    """No file that runs when it is loaded, no folder of this machine, and no harmful words."""
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "answers.jsonl"}
    assert {file.name for file in published.iterdir()} == names
    here = str(Path(made.store.root).parent)
    prompts = [row.prompt for row in rows_of(made.evals.harmful)]
    texts = "".join(f.read_text() for f in published.iterdir() if f.suffix != ".safetensors")
    assert here not in texts
    assert not [prompt for prompt in prompts if prompt in texts]
    assert json.loads((published / "adapter_config.json").read_text())["revision"] == "v1"
    lines = [json.loads(line) for line in (published / "answers.jsonl").read_text().splitlines()]
    assert [line["prompt_sha256"] for line in lines] == [
        hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts
    ]
    assert all(line["unsafe"] is True for line in lines), "none opens as a refusal"


def test_answers_are_published_where_that_is_asked_for(made: Made, tmp_path: Path) -> None:
    folder = export(made.stage.key, made.store.root, tmp_path / "a", None, with_answers=True)
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    found = [(line["prompt"], line["answer"]) for line in lines]
    assert found == harmful_pairs(Answers(made.store), made.stage.key, made.evals)
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model is None, "a folder here is nothing on a hub"
    assert 'place = "..."  # model, whose weights have the sha256 below' in card.text


def test_what_is_no_stage_or_no_empty_folder_is_refused(made: Made, published: Path) -> None:
    root = made.store.root
    with pytest.raises(
        UserError, match=r"no one stage '0000' in .*: of 1 stage none does; `raycib ls"
    ):
        export("0000", root, published, None, with_answers=False)
    with pytest.raises(UserError, match="is not empty"):
        export(made.stage.key, root, published, None, with_answers=False)
    file = published / "adapter_config.json"
    with pytest.raises(UserError, match=f"cannot write to {file}: File exists; choose --to"):
        export(made.stage.key, root, file, None, with_answers=False)


def test_where_the_prompts_are_gone_nothing_is_begun(made: Made, tmp_path: Path) -> None:
    file = Path(made.evals.harmful.source)
    aside = file.rename(file.with_suffix(".aside"))
    try:
        with pytest.raises(UserError, match="no data file at"):
            export(made.stage.key, made.store.root, tmp_path / "a", None, with_answers=False)
    finally:
        aside.rename(file)
    assert not (tmp_path / "a").exists()


def test_a_whole_model_is_published_as_one(made: Made, tmp_path: Path) -> None:
    stage = StageSpec.model_validate({**dict(made.stage), "method": {"kind": "lora"}, "lora": None})
    store = Store(tmp_path / "runs")
    group = AdapterGroup(name="whole", jobs=(Job(stage=stage, evals=()),))
    assert not train_group(group, load([stage], CPU), store, Workers(), 16, 1000)
    folder = export(stage.key, store.root, tmp_path / "model", None, with_answers=False)
    record = store.get(STAGES, stage.key)
    assert record
    ids = torch.arange(5, 25).reshape(2, 10)
    models = [AutoModelForCausalLM.from_pretrained(one) for one in (record.folder, folder)]
    with torch.no_grad():
        ours, theirs = (model(ids).logits for model in models)
    assert torch.equal(ours, theirs)
    assert AutoTokenizer.from_pretrained(folder).chat_template == tiny.TEMPLATE
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"
    assert "Not measured." in card.text


def test_a_base_in_4_bits_is_told_in_words_and_loaded_by_the_cards_code(tmp_path: Path) -> None:
    model = describe(str(tiny.make_model(tmp_path / "model"))).model_copy(
        update={"quantization": "nf4"}
    )
    (stage,) = tiny.make_chain(tmp_path, PlainLoRA(), rows=16, model=model)
    store = Store(tmp_path / "runs")
    tiny.train_chain((stage,), store)
    folder = export(stage.key, store.root, tmp_path / "hub", None, with_answers=False)
    text = (folder / "README.md").read_text()
    assert "| linear layers of the base | NF4 by bitsandbytes |" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    place, here = 'place = "..."', "THIS_REPOSITORY"
    assert place in code
    code = code.replace(place, f"place = {model.source!r}").replace(here, str(folder))
    names: dict[str, Any] = {}
    exec(code, names)
    layer = names["model"].get_base_model().model.layers[0].mlp.up_proj.base_layer
    assert (type(layer).__name__, layer.weight.quant_type) == ("Linear4bit", "nf4")
    assert layer.compute_dtype == torch.float32
