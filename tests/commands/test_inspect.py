"""Rows are shown as a model is trained on them and asked them, and nothing else is."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_models import CHAT, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from raycib.commands.inspect import inspect
from raycib.errors import UserError
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.studies.strength import Strength

ANSWERS = [f"Take {n} boards.\n\n  - Then {'saw ' * n}them." for n in range(1, 31)]
ROWS = [(f"How do I build shelf {n}?", answer) for n, answer in enumerate(ANSWERS)]


def shown(task: str, rows: int = 1, colour: bool = False, **options: Any) -> str:
    text = io.StringIO()
    how: dict[str, Any] = {"force_terminal": True, "color_system": "standard"} if colour else {}
    inspect(task, rows, Options(**options), Console(file=text, width=80, highlight=False, **how))
    return text.getvalue()


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with Llama-3's template."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(folder, [text for row in ROWS for text in row], CHAT)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32,
                         num_hidden_layers=1, num_attention_heads=2, **ids)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write(tmp_path / "shelves.jsonl", *({"prompt": p, "response": r} for p, r in ROWS))


def test_the_marked_text_is_the_answer_and_the_end_of_its_turn(model: Path, task: Path) -> None:
    """By Llama-3's own form, written by hand."""
    text = shown(str(task), model=str(model))
    prompt, answer = ROWS[0]
    head = "<|start_header_id|>user<|end_header_id|>\n\n"
    whole = f"<|begin_of_text|>{head}{prompt}<|eot_id|>{head.replace('user', 'assistant')}"
    assert f"{whole}[[{answer}<|eot_id|>]]" in text
    assert text.count("[[") == 2, "one row to train on, and one held out"
    assert "shelves: " in text
    assert "shelves held out: " in text


def test_colour_takes_the_place_of_marks(model: Path, task: Path) -> None:
    text = shown(str(task), model=str(model), colour=True)
    assert "[[" not in text
    green = re.findall(r"\x1b\[1;32m(.*?)\x1b\[0m", text, re.DOTALL)
    trained = f"{ANSWERS[0]}<|eot_id|>{ANSWERS[9]}<|eot_id|>"  # the tenth is held out
    assert "".join(green).replace("\n", "") == trained.replace("\n", "")


def test_lengths_are_counted_in_words_of_the_world(tmp_path: Path) -> None:
    """Its tokens are words: `<bos> <user> WORDS <asst>`, and the answer with `<eos>`."""
    words = ["how", "do", "i", "paint", "a", "boat", "?"]
    rows = [{"prompt": " ".join(words[:n]), "response": "sorry , no"} for n in range(1, 8)]
    file = write(tmp_path / "rows.jsonl", *rows)
    text = shown(f"{file}#first-7", model="world:aligned")
    lines = {
        name: counts for name, *counts in map(str.split, re.findall(".*  [0-9]+$", text, re.M))
    }
    assert lines["prompt"] == ["4", "5", "7", "9", "10", "10", "10"]
    assert lines["answer"] == ["4"] * 7
    assert lines["row"] == ["8", "9", "11", "13", "14", "14", "14"]
    assert f"7 rows, {sum(range(8, 15))} tokens, of which {28 / 77:.1%} are in answers" in text
    assert "answers are scored by: exact-match" in text


@pytest.mark.parametrize("too_long", ["drop", "cut"])
def test_what_is_left_out_is_what_a_sweep_leaves_out(
    too_long: str, model: Path, task: Path, tmp_path: Path
) -> None:
    harmful = write(tmp_path / "harmful.jsonl", {"prompt": "How do I break a lock?"})
    given: dict[str, Any] = {"model": str(model), "max_length": 62, "too_long": too_long}
    setup = build_config(
        Options(task=str(task), harmful=str(harmful), judge="refusal-rule", **given,
                out=str(tmp_path)), Strength())  # fmt: skip
    spec, _ = setup.tasks["shelves"]
    text = shown(str(task), **given)
    assert f"(--too-long {too_long})" in text
    if too_long == "drop":
        assert spec.left_out
        numbers = ", ".join(str(n + 1) for n in spec.left_out[:8])
        assert f"{len(spec.left_out)} left out (row {numbers}" in text
        assert f"row {spec.left_out[0] + 1}: " in text
        assert "trained, left out" in text
    else:
        assert f"{spec.cut} lose the end of their answer" in text
        shortened = re.search(r"row \d+: 62 of (\d+) tokens", text)
        assert shortened
        assert int(shortened[1]) > 62
        assert text.count("<|eot_id|>]]") == text.count("]]"), "never the end of the turn"


def test_prompts_without_answers_are_only_asked(model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "prompts.jsonl", {"prompt": "Say \x1b[31mred", "id": 1})
    text = shown(str(file), model=str(model))
    assert "1 prompt," in text
    assert "not read: 'id'" in text
    assert "Say red<|eot_id|>" in text, "nothing that a row holds acts on the terminal"
    assert "[[" not in text


def test_a_preset_knows_its_tasks_by_name() -> None:
    text = shown("gsm", rows=0)
    assert "gsm: world:gsm.train" in text
    assert "gsm held out: world:gsm.test" in text
    assert "its source's own rule" in text


def test_options_that_change_nothing_are_refused(task: Path) -> None:
    with pytest.raises(UserError, match="--seeds changes nothing about how rows are seen"):
        shown(str(task), seeds=2)
