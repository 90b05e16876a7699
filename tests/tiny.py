"""A random Llama of a few thousand weights with a word-level tokenizer, made on the spot."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raycib.data.rows import describe_rows, describe_task
from raycib.model_files import describe
from raycib.spec import EvalSpec, LoRASpec, StageSpec, TrainerSpec

WORDS = [f"w{number}" for number in range(40)]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %} <eos>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_model(folder: Path, seed: int = 0, hidden: int = 32) -> Path:
    """A Hugging Face folder with the model and its tokenizer."""
    controls = ["<pad>", "<eos>", "<user>", "<assistant>"]
    vocabulary = {word: number for number, word in enumerate(["<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=controls[2:],
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary) + len(controls),
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


def make_stage(folder: Path, rows: int = 48, **changes: object) -> StageSpec:
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
    return StageSpec(**{**settings, **changes})  # type: ignore[arg-type]


def make_evals(folder: Path, rows: int = 24) -> EvalSpec:
    """Held-out rows of the same kind; the same file stands in for the harmful prompts."""
    data = make_rows(folder / "held-out.jsonl", rows, seed=1)
    spec = describe_rows("held-out", str(data), max_length=64, max_tokens=8)
    return EvalSpec(harmful=spec, held_out=spec)
