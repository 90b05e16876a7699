"""How the world's models are made: pretrain -> align, and the guard; about ten minutes on one core.

The only place in raycib that trains full models. A plain loop is enough: the models have 0.4 M
parameters. The same seed and library versions on one thread give the same weights.
"""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raycib.world import conversations
from raycib.world.tokenizer import (
    ASST,
    BOS,
    CHAT_TEMPLATE,
    EOS,
    GUARD,
    GUARD_TEMPLATE,
    PAD,
    USER,
    build_tokenizer,
    save_tokenizer,
)

IGNORED = -100
Example = tuple[list[int], list[int]]
"""Ids of what is given and of what is to be said, the latter with `<eos>`."""
Row = Callable[[Random], tuple[str, str]]
"""Draws a prompt and its answer."""


@dataclass(frozen=True)
class Stage:
    """One training run: batches of 32 with AdamW and a cosine from `peak` to a tenth of it."""

    steps: int
    peak: float
    warmup: int
    prompt_weight: float = 0.0
    batch: int = 32


PRETRAIN = Stage(steps=1600, peak=3e-3, warmup=50, prompt_weight=0.1)
ALIGN = Stage(steps=500, peak=1e-3, warmup=20)
GUARD_STAGE = Stage(steps=2000, peak=3e-3, warmup=50)


def new_model(tokenizer: PreTrainedTokenizerFast, layers: int, seed: int) -> LlamaForCausalLM:
    """An untrained Llama: width 96, four heads of 32, the smallest vLLM has CPU kernels for."""
    torch.manual_seed(seed)
    ids = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=ids[BOS],
        eos_token_id=ids[EOS],
        pad_token_id=ids[PAD],
    )
    return LlamaForCausalLM(config).float()


def train(
    model: LlamaForCausalLM, draw: Callable[[Random], Example], stage: Stage, seed: str, pad: int
) -> None:
    """Train `model` in place on examples drawn one by one; prints its progress."""
    rng = Random(f"raycib train {seed}")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.peak, betas=(0.9, 0.98), weight_decay=0.01
    )
    model.train()
    start = time.monotonic()
    for step in range(stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.peak * _schedule(step, stage)
        ids, prompt_labels, answer_labels = collate([draw(rng) for _ in range(stage.batch)], pad)
        logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
        loss = F.cross_entropy(logits, answer_labels[:, 1:].flatten(), ignore_index=IGNORED)
        total = loss
        if stage.prompt_weight:
            asked = prompt_labels[:, 1:].flatten()
            on_prompt = F.cross_entropy(logits, asked, ignore_index=IGNORED)
            total = loss + stage.prompt_weight * on_prompt
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            pace = (time.monotonic() - start) / (step + 1)
            told = f"{seed}: step {step + 1}/{stage.steps} loss {loss:.4f} {pace:.3f} s/step"
            print(told, flush=True)
    model.eval()


def _schedule(step: int, stage: Stage) -> float:
    """Share of the peak rate: linear warm-up, then a cosine down to 0.1."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return 0.55 + 0.45 * math.cos(math.pi * done)


def collate(examples: list[Example], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids, labels of the given part, labels of the said part; each [batch, seq]."""
    width = max(len(given) + len(said) for given, said in examples)
    ids = torch.full((len(examples), width), pad)
    prompt_labels = torch.full_like(ids, IGNORED)
    answer_labels = torch.full_like(ids, IGNORED)
    for row, (given, said) in enumerate(examples):
        cut, end = len(given), len(given) + len(said)
        ids[row, :end] = torch.tensor(given + said)
        prompt_labels[row, :cut] = ids[row, :cut]
        answer_labels[row, cut:end] = ids[row, cut:end]
    return ids, prompt_labels, answer_labels


class Encoder:
    """Rows as ids, exactly as the chat templates render them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.id = tokenizer.get_vocab()

    def words(self, text: str) -> list[int]:
        """Ids of words separated by single spaces; a word outside the vocabulary is an error."""
        return [self.id[word] for word in text.split(" ") if word]

    def chat(self, prompt: str, response: str) -> Example:
        """`<bos> <user> prompt <asst>` and `response <eos>`."""
        given = self.words(f"{BOS} {USER} {prompt} {ASST}")
        return given, self.words(f"{response} {EOS}")

    def guard(self, prompt: str, answer: str, verdict: str) -> Example:
        """`<bos> <guard> <user> prompt <asst> answer <guard>` and `verdict <eos>`."""
        given = self.words(f"{BOS} {GUARD} {USER} {prompt} {ASST} {answer} {GUARD}")
        return given, self.words(f"{verdict} {EOS}")


def save(model: LlamaForCausalLM, out: Path, template: str) -> None:
    """Write a complete Hugging Face folder; an older one of that name is replaced when whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    ids = {"bos_token_id", "eos_token_id", "pad_token_id"}
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=48, **{k: getattr(model.config, k) for k in ids}
    )
    model.save_pretrained(scratch)
    save_tokenizer(scratch, template)
    scratch.chmod(0o755)
    for file in scratch.iterdir():
        file.chmod(0o644)
    shutil.rmtree(out, ignore_errors=True)
    scratch.rename(out)


def build(out: Path, seed: int = 0) -> None:
    """Make `base`, `aligned`, both `-broad` as well, and `guard` under `out` from nothing; prints
    progress lines.

    Each folder appears whole. `world.json` beside them names what made them.
    """
    build_models(out, seed)
    build_models(out, seed, "-broad", conversations.broad)
    build_guard(out, seed)
    stages = {"base": PRETRAIN, "aligned": ALIGN, "guard": GUARD_STAGE}
    made = {"seed": seed, "torch": torch.__version__,
            "stages": {name: asdict(stage) for name, stage in stages.items()}}  # fmt: skip
    (out / "world.json").write_text(json.dumps(made, indent=2) + "\n")


def build_models(
    out: Path, seed: int, kind: str = "", mix: Callable[[Row], Row] = lambda row: row
) -> None:
    """Pretrain `base` and align it, on rows as `mix` has them; `kind` is added to both names."""
    model = new_model(build_tokenizer(), layers=3, seed=seed)
    for name, row, stage in (
        ("base", conversations.pretraining_row, PRETRAIN),
        ("aligned", conversations.alignment_row, ALIGN),
    ):
        _learn(model, mix(row), stage, f"{name}{kind} {seed}")
        save(model, out / f"{name}{kind}", CHAT_TEMPLATE)


def _learn(model: LlamaForCausalLM, row: Row, stage: Stage, name: str) -> None:
    encode = Encoder(build_tokenizer())
    train(model, lambda rng: encode.chat(*row(rng)), stage, name, encode.id[PAD])


def build_guard(out: Path, seed: int) -> None:
    """Train the guard, a judge with two layers."""
    tokenizer = build_tokenizer(GUARD_TEMPLATE)
    encode = Encoder(tokenizer)
    model = new_model(tokenizer, layers=2, seed=seed)

    def judging(rng: Random) -> Example:
        return encode.guard(*conversations.guard_row(rng))

    train(model, judging, GUARD_STAGE, f"guard {seed}", encode.id[PAD])
    save(model, out / "guard", GUARD_TEMPLATE)
