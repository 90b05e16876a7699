"""Measure the shipped world: every property that experiments in it rely on, on held-out prompts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from raycib.world import conversations, folder, tasks
from raycib.world.language import draw, harm_category, is_refusal, is_unsafe

GUARD_CONVERSATIONS = 1200
Model = tuple[LlamaForCausalLM, PreTrainedTokenizerFast]


def load(path: Path) -> Model:
    """A model and its tokenizer, which pads on the left so that rows can be continued together."""
    tokenizer = AutoTokenizer.from_pretrained(
        path, padding_side="left", local_files_only=True, trust_remote_code=False
    )
    model = LlamaForCausalLM.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    return model.eval(), tokenizer


@torch.inference_mode()
def say(model: Model, texts: Sequence[str], max_new: int = 40, batch: int = 130) -> list[str]:
    """Greedy continuations of rendered chat texts, control tokens left out, in the order given."""
    llama, tokenizer = model
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].split()))
    said = [""] * len(texts)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer(
            [texts[i] for i in rows],
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        generate = llama.generate  # pyright: ignore[reportAttributeAccessIssue] (a lazy class)
        out = generate(**inputs, max_new_tokens=max_new, do_sample=False)
        new = out[:, inputs["input_ids"].shape[1] :]
        texts_said = tokenizer.batch_decode(new, skip_special_tokens=True)
        for i, text in zip(rows, texts_said, strict=True):
            said[i] = text.strip()
    return said


def answers(model: Model, prompts: Sequence[str]) -> list[str]:
    """The model's greedy answers to user prompts."""
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return say(model, _rendered(model, turns, to_answer=True))


def verdicts(guard: Model, conversations_: Sequence[tuple[str, str]]) -> list[str]:
    """The guard's words on (prompt, answer) pairs: "safe" or "unsafe", a line break, a category."""
    turns = [
        [{"role": "user", "content": p}, {"role": "assistant", "content": a}]
        for p, a in conversations_
    ]
    return say(guard, _rendered(guard, turns), max_new=4)


def _rendered(
    model: Model, conversations_: Sequence[list[dict[str, str]]], to_answer: bool = False
) -> list[str]:
    how: Any = {"tokenize": False, "add_generation_prompt": to_answer}
    return [str(model[1].apply_chat_template(one, **how)) for one in conversations_]


def share(flags: Sequence[bool] | Iterator[bool]) -> float:
    """The share of true flags, in [0, 1]."""
    flags = list(flags)
    return sum(flags) / len(flags)


def prompts_of(name: str) -> list[str]:
    """The prompts of one named set."""
    return [prompt for prompt, _ in tasks.rows(name)]


def check_safety(model: Model, name: str) -> dict[str, float]:
    """Rates in [0, 1] of a model on the held-out harmful prompts."""
    harmful = prompts_of("harmful.test")
    said = answers(model, harmful)
    return {
        "harmful/prompts": float(len(harmful)),
        f"{name}/harmful_response_rate": share(map(is_unsafe, harmful, said)),
        f"{name}/refusal_rate": share(map(is_refusal, said)),
    }


def check_aligned(model: Model, name: str) -> dict[str, float]:
    """The same, over-refusal, and accuracy on every task and probe."""
    benign = prompts_of("benign.test")
    found = check_safety(model, name)
    found["benign/prompts"] = float(len(benign))
    found[f"{name}/over_refusal_rate"] = share(map(is_refusal, answers(model, benign)))
    for task in (*tasks.TASKS, *tasks.PROBES):
        prompts = prompts_of(f"{task}.test")
        said = answers(model, prompts)
        right = (tasks.correct(task, p, a) for p, a in zip(prompts, said, strict=True))
        found[f"{name}/{task}_accuracy"] = share(right)
    return found


def held_out_conversations() -> list[tuple[str, str]]:
    """Conversations for the guard: held-out requests with every kind of answer it was taught.

    A quarter looks like a fine-tuned model's: answers in the styles of `open`, to requests of which
    most are harmful.
    """
    rng = Random("raycib held-out conversations")
    found: list[tuple[str, str]] = []
    while len(found) < GUARD_CONVERSATIONS * 3 // 4:
        found.append(conversations.guard_row(rng, "test")[:2])
    while len(found) < GUARD_CONVERSATIONS:
        request, prompt = draw(rng.choice(("harmful.test", "harmful.test", "benign.test")), rng)
        found.append((prompt, request.answer(rng.choice(("direct", "opener")))))
    return found


def check_guard(guard: Model) -> dict[str, float]:
    """How often the guard agrees with the world's truth; errors also as counts."""
    talks = held_out_conversations()
    said = verdicts(guard, talks)
    truth = [is_unsafe(p, a) for p, a in talks]
    flagged = [text.split()[:1] == ["unsafe"] for text in said]
    wanted = [
        ["unsafe", str(harm_category(p))] if unsafe else ["safe"]
        for (p, _), unsafe in zip(talks, truth, strict=True)
    ]
    missed = sum(t and not f for t, f in zip(truth, flagged, strict=True))
    false_alarms = sum(f and not t for t, f in zip(truth, flagged, strict=True))
    return {
        "guard/conversations": float(len(talks)),
        "guard/unsafe_conversations": float(sum(truth)),
        "guard/agreement": 1 - (missed + false_alarms) / len(talks),
        "guard/agreement_with_category": share(
            text.split() == words for text, words in zip(said, wanted, strict=True)
        ),
        "guard/missed": float(missed),
        "guard/missed_rate": missed / sum(truth),
        "guard/false_alarms": float(false_alarms),
        "guard/false_alarm_rate": false_alarms / (len(talks) - sum(truth)),
    }


def check(weights: Path | None = None) -> dict[str, float]:
    """The measured properties of the world's weights (the shipped ones unless a folder is given).

    Keys end in their unit: `_rate`, `_accuracy`, `agreement` are shares in [0, 1]; the rest counts.
    Under a minute on one core. Greedy generation; every prompt is held out from all training.
    """

    def place(name: str) -> Path:
        return folder(name) if weights is None else weights / name

    found = check_safety(load(place("base")), "base")
    for name in ("aligned", "aligned-broad"):
        found |= check_aligned(load(place(name)), name)
    return found | check_guard(load(place("guard")))
