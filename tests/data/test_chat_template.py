"""The unified ChatML prompt of the CIB paper's sequences (C.5), beside a model's own."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raycib.data.chat import encode, encode_prompt, said, use_chatml
from raycib.data.rows import Row
from raycib.errors import UserError
from raycib.model_files import describe
from raycib.models import load_tokenizer

PAPER = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nHow many?<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def letters(eos: str) -> PreTrainedTokenizerFast:
    """A tokenizer of single characters, so that any text has words."""
    vocabulary = {chr(code): code for code in range(128)}
    characters = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters)
    tokenizer.add_special_tokens({"eos_token": eos})
    use_chatml(tokenizer, "letters")
    return tokenizer


def spelled(tokenizer: PreTrainedTokenizerFast, ids: object) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(list(ids)))  # type: ignore[call-overload]


def test_a_prompt_is_the_paper_s():
    tokenizer = letters("<end>")
    assert spelled(tokenizer, encode_prompt(tokenizer, "How many?")) == PAPER


@pytest.mark.parametrize(
    ("eos", "closing"), [("<end>", "<|im_end|><end>"), ("<|im_end|>", "<|im_end|>")]
)
def test_an_answer_ends_with_the_mark_and_the_model_s_own_end(eos: str, closing: str):
    """A model whose end of text is ChatML's own mark says it once."""
    tokenizer = letters(eos)
    found = encode(tokenizer, Row("How many?", "Two."), 1024)
    assert spelled(tokenizer, found.prompt) == PAPER
    assert spelled(tokenizer, found.response) == f"Two.{closing}"
    assert tokenizer.convert_ids_to_tokens([found.response[-1]]) == [eos]


def test_what_follows_the_mark_is_no_answer_under_chatml():
    """The mark in plain text ends the turn, and so the answer."""
    tokenizer = letters("<end>")
    assert said(tokenizer, "Sorry.<|im_end|>And then?") == ("Sorry.", "", True)
    assert said(tokenizer, "Two.") == ("Two.", "", False)


def test_under_a_template_without_it_the_mark_ends_nothing():
    """Else an answer could hide its harmful half behind a mark that ends nothing."""
    tokenizer = letters("<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    text = "Sorry.<|im_end|>But here is how."
    assert said(tokenizer, text) == (text, "", False)


def test_a_row_s_own_system_prompt_takes_the_place_of_the_paper_s():
    tokenizer = letters("<end>")
    prompt = encode_prompt(tokenizer, "How many?", "Count.")
    assert spelled(tokenizer, prompt) == PAPER.replace("You are a helpful assistant.", "Count.")


def test_a_tokenizer_without_words_for_the_marks_is_told():
    with pytest.raises(UserError, match="no words for ChatML's marks; leave --chat out"):
        load_tokenizer("world:aligned", "chatml")


def test_the_template_is_part_of_a_model_s_key(tiny_folder: Path):
    own = describe(str(tiny_folder / "model"))
    unified = describe(str(tiny_folder / "model"), template="chatml")
    assert own.key != unified.key
