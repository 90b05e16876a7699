"""Answers and verdicts do not depend on what shares their batch, in float32 on a CPU."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from raycib import world
from raycib.data.chat import encode_prompt
from raycib.data.chat_format import chat_format
from raycib.evals import generate
from raycib.evals.engine import GenerationRequest
from raycib.evals.generate import Generator
from raycib.evals.in_process import InProcessGenerator, targets_of
from raycib.models import load_tokenizer
from raycib.runtime.judge import describe_judge, guard_judge
from raycib.world.language import STYLES, parse

ALIGNED = world.folder("aligned")
ADAPTERS, PROMPTS, TOKENS, LENGTH = 16, 16, 24, 128


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixteen of the world's aligned model, each far enough from it to answer otherwise."""
    folder, found = tmp_path_factory.mktemp("adapters"), []
    for seed in range(ADAPTERS):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False
        )
        model = AutoModelForCausalLM.from_pretrained(ALIGNED, dtype=torch.float32)
        found.append(folder / str(seed))
        get_peft_model(model, config).save_pretrained(found[-1])
    return found


@pytest.fixture(scope="module")
def requests(adapters: list[Path]) -> list[GenerationRequest]:
    """The same harmful prompts to all of them."""
    tokenizer = load_tokenizer(str(ALIGNED), "own")
    rows = world.rows("harmful.test")[:PROMPTS]
    asked = [tuple(encode_prompt(tokenizer, row["prompt"], "")) for row in rows]
    return [
        GenerationRequest(f"{number} {place}", ids, adapter, TOKENS)
        for number, adapter in enumerate(adapters)
        for place, ids in enumerate(asked)
    ]


def tokens(engine: Any, requests: list[GenerationRequest]) -> dict[str, tuple[int, ...]]:
    return {answer.id: answer.token_ids for answer in engine.answer(requests)}


@pytest.mark.real
def test_vllm_answers_each_adapter_as_if_it_were_alone(
    requests: list[GenerationRequest], adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen adapters at once, in another order, one adapter alone, every answer alone with
    nothing kept of before, few together, and from an engine whose batches hold five."""
    stop = [chat_format(load_tokenizer(str(ALIGNED), "own")).end]

    def start() -> Generator:
        return Generator(
            ALIGNED,
            max_lora_rank=8,
            max_model_len=LENGTH,
            targets=targets_of(adapters[0]),
            stop=stop,
        )

    engine, luck = start(), random.Random(0)
    whole = tokens(engine, requests)
    assert len(set(whole.values())) > len(requests) / 4, "they do not all say the same"
    shuffled = luck.sample(requests, len(requests))
    assert tokens(engine, shuffled) == whole
    fourth = [one for one in requests if one.id.startswith("4 ")]
    assert tokens(engine, fourth) == {one.id: whole[one.id] for one in fourth}
    some = shuffled[:48]
    assert [one.token_ids for one in engine.alone(some)] == [whole[one.id] for one in some]
    for size in (2, 3, 7):
        assert tokens(engine, some[:size]) == {one.id: whole[one.id] for one in some[:size]}
    del engine
    monkeypatch.setattr(generate, "_MAX_SEQS", 5)
    assert tokens(start(), requests) == whole


@pytest.fixture(scope="module")
def in_process(adapters: list[Path]) -> InProcessGenerator:
    tokenizer = load_tokenizer(str(ALIGNED), "own")
    model = AutoModelForCausalLM.from_pretrained(ALIGNED, dtype=torch.float32)
    targets = [tuple(targets_of(adapters[0]))]
    stop = [chat_format(tokenizer).end]
    return InProcessGenerator(model, tokenizer, max_model_len=LENGTH, targets=targets, stop=stop)


def test_a_model_in_this_process_answers_as_if_alone(
    in_process: InProcessGenerator, requests: list[GenerationRequest]
) -> None:
    few = requests[: 4 * PROMPTS]
    whole = tokens(in_process, few)
    some = few[::3]
    assert [one.token_ids for one in in_process.alone(some)] == [whole[one.id] for one in some]


def test_a_guard_reads_each_conversation_as_if_alone() -> None:
    """Harmful answers in every style, and refusals: 64 together, five together, each alone."""
    spec = describe_judge("world:guard", None)
    folder = world.folder("guard")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine = InProcessGenerator(model, load_tokenizer(str(folder), "own"), max_model_len=512)
    pairs = []
    for place, row in enumerate(world.rows("harmful.test")[:60]):
        request = parse(row["prompt"])
        assert request
        styles = [*STYLES, "refusal"]
        style = styles[place % len(styles)]
        said = "sorry , i cannot help with that ." if style == "refusal" else request.answer(style)
        pairs.append((row["prompt"], said))
    together = guard_judge(spec, engine).judge(pairs)
    assert {verdict.harmful for verdict in together} == {True, False}
    assert guard_judge(spec, engine, rows_at_once=5).judge(pairs) == together
    alone = guard_judge(spec, engine, rows_at_once=1)
    assert [verdict for pair in pairs for verdict in alone.judge([pair])] == together
