"""A random Llama of a few thousand weights with a word-level tokenizer, made on the spot."""

import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raycib.config import (
    EvalSpec,
    LoRASpec,
    Method,
    ModelSpec,
    RowsSpec,
    StageSpec,
    TaskSpec,
    TrainerSpec,
)
from raycib.config.grid import Variant
from raycib.config.plan import AdapterGroup, Job
from raycib.data.rows import describe_rows, describe_task
from raycib.model_files import describe
from raycib.models.adapters import AdapterSlots
from raycib.store import Store
from raycib.training.group import STAGES, load, open_slot, train_group, validate
from raycib.training.loop import train
from raycib.training.slot import Slot
from raycib.training.workers import Workers

WORDS = [f"w{number}" for number in range(40)]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %} <eos>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A word-level tokenizer and its files."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(folder: Path, seed: int = 0, hidden: int = 32) -> Path:
    """A Hugging Face folder with the model and its tokenizer."""
    tokenizer = make_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_rows(path: Path, count: int, seed: int = 0) -> Path:
    """A JSONL task: prompts of 3 to 9 words, answered by some of them, backwards."""
    draw = random.Random(f"rows {seed}")
    lines = []
    for _ in range(count):
        prompt = draw.choices(WORDS, k=draw.randint(3, 9))
        answer = " ".join(reversed(prompt[: draw.randint(2, len(prompt))]))
        lines.append(f'{{"prompt": "{" ".join(prompt)}", "response": "{answer}"}}\n')
    path.write_text("".join(lines))
    return path


def make_stage(folder: Path, rows: int = 48, **overrides: object) -> StageSpec:
    """A stage on the tiny model: 16 rows a step, learning fast enough to move in a few steps."""
    if not (folder / "model").exists():
        make_model(folder / "model")
    data = make_rows(folder / f"rows{rows}.jsonl", rows)
    settings = {
        "model": describe(str(folder / "model")),
        "task": describe_task("tiny", str(data), max_length=64),
        "lora": LoRASpec(rank=4, alpha=8),
        "trainer": TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=2, epochs=2),
    }
    return StageSpec(**{**settings, **overrides})  # type: ignore[arg-type]


def make_evals(folder: Path, rows: int = 24) -> EvalSpec:
    """Held-out rows of the same kind; the same file stands in for the harmful prompts."""
    data = make_rows(folder / "held-out.jsonl", rows, seed=1)
    spec = describe_rows("held-out", str(data), max_length=64, max_tokens=8)
    return EvalSpec(harmful=spec, held_out=spec)


def set_of(rows: RowsSpec) -> dict[str, Any]:
    """Prompts that were asked, as a sweep's results name them."""
    lengths = {"left_out": 0, "cut": 0, "longest": 9, "limit": 56}
    told = {"name": rows.name, "source": rows.source, "rows": rows.num_rows}
    return told | lengths | {"max_tokens": rows.max_tokens}


def make_safety(folder: Path) -> TaskSpec:
    """Twelve rows of the same kind that stand in for harmful prompts with refusals."""
    data = folder / "safety.jsonl"
    if not data.exists():
        make_rows(data, 12, seed=5)
    return describe_task("safety", str(data), max_length=64)


def make_base(folder: Path) -> ModelSpec:
    """Another tiny model, which stands in for the one before alignment."""
    if not (folder / "base").exists():
        make_model(folder / "base", seed=1)
    return describe(str(folder / "base"))


def grounded(method: Method, folder: Path) -> Method:
    """The same method with the tiny safety data and base model in place of those it names."""
    own = {"safety": make_safety, "base": make_base}
    found = {name: make(folder) for name, make in own.items() if name in type(method).model_fields}
    return method.model_copy(update=found)


def make_chain(
    folder: Path, method: Method, rows: int = 48, stacked: bool = False, **overrides: object
) -> tuple[StageSpec, ...]:
    """The stages of a method, as a grid makes them: one, or two where it is derived from plain
    LoRA, or trained (also if `stacked`) on top of an adapter for the safety data."""
    safety = make_safety(folder) if stacked or method.stacked else None
    return Variant(grounded(method, folder), safety=safety).chain(
        make_stage(folder, rows, **overrides)
    )


def last_of(folder: Path, method: Method, rows: int = 48, **overrides: object) -> StageSpec:
    """The last of a method's stages: 48 rows in batches of 16, twice, are 6 steps."""
    return make_chain(folder, method, rows, **overrides)[-1]


def train_chain(stages: tuple[StageSpec, ...], store: Store, micro: int = 16) -> None:
    """Train the stages that `store` lacks, one after the other."""
    for stage in stages:
        if store.get(STAGES, stage.key) is None:
            group = AdapterGroup(name=f"pack-{stage.short}", jobs=(Job(stage=stage, evals=()),))
            loaded = load([stage], torch.device("cpu"))
            failed = train_group(group, loaded, store, Workers(), micro, checkpoint_every=1000)
            assert not failed, failed


def adapter_of(store: Store, stage: StageSpec) -> dict[str, torch.Tensor]:
    """The factors of a trained stage, by PEFT's names."""
    record = store.get(STAGES, stage.key)
    assert record
    return load_file(record.path("adapter_model.safetensors"))


def open_slots(
    stages: list[StageSpec], store: Store, cached: bool = True
) -> tuple[AdapterSlots, list[Slot]]:
    """A fresh base with a slot for every stage, as `train_group` opens them; parents are trained
    first where `store` lacks them."""
    for stage in stages:
        if stage.parent is not None:
            train_chain((stage.parent,), store)
    loaded = load(stages, torch.device("cpu"))
    slots = [open_slot(n, stage, loaded, store, cached) for n, stage in enumerate(stages)]
    return loaded.adapters, slots


def trained(
    stages: list[StageSpec], store: Store, micro: int = 16, cached: bool = True
) -> list[Slot]:
    """Slots at their last step, in order."""
    adapters, slots = open_slots(stages, store, cached)
    train(adapters, slots, Workers(), micro)
    assert [validate(slot) for slot in slots] == [None] * len(slots)
    return slots
