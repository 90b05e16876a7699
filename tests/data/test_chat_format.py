"""What chat templates put around an answer: shared by training and generation, or refused."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from chat_templates import (
    ALWAYS_OPENS,
    ALWAYS_THINKS,
    CHATML,
    HYBRID,
    LLAMA2,
    LLAMA3,
    MISTRAL,
    NEVER_OPENS,
    TURN,
    VICUNA,
    ZEPHYR,
    byte_level,
    sentencepiece,
)
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from raycib.config import TODAY
from raycib.data import rendering
from raycib.data.chat import encode, encode_prompt, said
from raycib.data.chat_format import chat_format
from raycib.data.rendering import render
from raycib.data.rows import Row
from raycib.errors import UserError
from raycib.model_files import describe, verified
from raycib.models import load_tokenizer

ROW = Row("how do you do ?", "here, (sand)")


def whole_ids(tokenizer: Any, row: Row) -> list[int]:
    """Of the conversation's text, by the tokenizer alone."""
    turns = [
        {"role": "user", "content": row.prompt},
        {"role": "assistant", "content": row.response},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("make", [sentencepiece, byte_level])
@pytest.mark.parametrize("template", [LLAMA3, CHATML, LLAMA2, ZEPHYR, VICUNA])
def test_an_answer_has_the_tokens_that_it_has_in_its_place(make: Any, template: str):
    """Whatever a template's style and a tokenizer's kind: the ids are the whole text's, and those
    of the prompt are what generation is given."""
    tokenizer = make(template)
    found = encode(tokenizer, ROW, 1000)
    whole = whole_ids(tokenizer, ROW)
    assert whole[-len(found.response) :] == list(found.response)
    assert list(found.prompt) == encode_prompt(tokenizer, ROW.prompt)
    assert tokenizer.decode(found.prompt + found.response) == tokenizer.decode(whole)
    # GPT-2's kind parts two line breaks before a word, and joins them at the end of a prompt.
    parted = make is byte_level and template == LLAMA3
    assert (list(found.prompt + found.response) == whole) == (not parted)
    assert tokenizer.decode(found.response).lstrip().startswith("here, (sand)")


def test_white_space_that_the_answer_s_first_token_takes_in_is_left_to_it():
    """ "ASSISTANT: " is asked as "ASSISTANT:", else no answer could begin with "_here"."""
    tokenizer = sentencepiece(VICUNA)
    found = encode(tokenizer, ROW, 1000)
    assert tokenizer.decode(found.prompt).endswith("ASSISTANT:")
    assert tokenizer.convert_ids_to_tokens(found.response[0]) == "\u2581here"


def test_an_answer_that_begins_within_the_prompt_s_last_token_is_said_after_the_prompt_s_own():
    """ "](" is one token of the whole text; generation is given "]" and can say "("."""
    tokenizer = sentencepiece(MISTRAL)
    row = ROW._replace(response="(sand)")
    found = encode(tokenizer, row, 1000)
    whole = whole_ids(tokenizer, row)
    assert "](" in tokenizer.convert_ids_to_tokens(whole)
    assert list(found.prompt) == encode_prompt(tokenizer, row.prompt)
    first = tokenizer.convert_ids_to_tokens(found.response[:2])
    assert first == ["(", "s"]
    assert tokenizer.decode(found.prompt + found.response) == tokenizer.decode(whole)


@pytest.mark.parametrize(
    ("template", "end"),
    [(LLAMA3, "<|eot|>"), (ALWAYS_OPENS, "<|eot|>"), (CHATML, "<|eot|>"), (LLAMA2, "</s>")],
)
def test_the_token_that_ends_a_turn_is_found_whatever_the_eos_is(template: str, end: str):
    tokenizer = byte_level(template)
    form = chat_format(tokenizer)
    assert tokenizer.convert_ids_to_tokens(form.end) == end
    found = encode(tokenizer, ROW, 1000)
    assert found.response.count(form.end) == 1
    assert tokenizer.decode(found.response).rstrip().endswith(end)


def test_the_opening_of_the_next_turn_is_no_part_of_an_answer():
    tokenizer = byte_level(ALWAYS_OPENS)
    assert tokenizer.decode(encode(tokenizer, ROW, 1000).response).lstrip() == "here, (sand)<|eot|>"
    assert any("is left out" in note for note in chat_format(tokenizer).notes)


def test_a_template_that_ends_no_turn_is_given_the_eos_and_says_so():
    """The token that opens the next turn ends none."""
    tokenizer = byte_level(ALWAYS_OPENS.replace("<|eot|>", ""))
    assert tokenizer.decode(encode(tokenizer, ROW, 1000).response).lstrip() == "here, (sand)</s>"
    assert any("end with the eos token" in note for note in chat_format(tokenizer).notes)
    tokenizer.eos_token = None
    tokenizer.chat_template += "{# another #}"
    with pytest.raises(UserError, match="ends no turn and the tokenizer has no eos_token"):
        chat_format(tokenizer)


def test_a_turn_end_that_engines_show_is_taken_off_an_answer():
    """Engines leave out special tokens alone."""
    tokenizer = byte_level(CHATML)
    assert said(tokenizer, "Yes.<|eot|>").answer == "Yes.<|eot|>", "no mark of this template's"
    core = Tokenizer.from_str(
        tokenizer.backend_tokenizer.to_str().replace('"special":true', '"special":false')
    )
    plain = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    plain.chat_template = CHATML
    assert said(plain, "Yes.<|eot|>") == ("Yes.", "", True)


def test_where_a_template_opens_no_answer_prompts_do():
    """Else the opening would be trained as the beginning of every answer."""
    tokenizer = byte_level(NEVER_OPENS)
    found = encode(tokenizer, ROW, 1000)
    assert list(found.prompt) == encode_prompt(tokenizer, ROW.prompt)
    assert tokenizer.decode(found.prompt).endswith("<|start|>assistant\n")
    assert any("prompts end with" in note for note in chat_format(tokenizer).notes)


@pytest.mark.parametrize(("template", "closed"), [(HYBRID, True), (ALWAYS_THINKS, False)])
def test_no_think_block_is_trained_and_generation_begins_where_training_does(
    template: str, closed: bool
):
    """A hybrid's prompts have an empty one; those of a model that always thinks have none."""
    tokenizer = byte_level(template)
    found = encode(tokenizer, ROW, 1000)
    assert list(found.prompt) == encode_prompt(tokenizer, ROW.prompt)
    prompt = tokenizer.decode(found.prompt)
    assert ("<think>" in prompt, "</think>" in prompt) == (closed, closed)
    assert tokenizer.decode(found.response).lstrip() == "here, (sand)<|eot|>\n"


def test_a_template_that_speaks_of_thinking_says_that_there_is_none():
    """As SmolLM3's: thinking is on unless it is told otherwise."""
    told = "{% if enable_thinking is defined and not enable_thinking %}/no_think{% else %}/think"
    tokenizer = byte_level(told + "{% endif %}" + CHATML)
    found = encode(tokenizer, ROW, 1000)
    assert list(found.prompt) == encode_prompt(tokenizer, ROW.prompt)
    assert tokenizer.decode(found.prompt).startswith("/no_think<|start|>")


def test_white_space_that_is_left_to_the_answer_is_none_of_its_text():
    tokenizer = byte_level(VICUNA)
    assert chat_format(tokenizer).before == " "
    assert said(tokenizer, "   Yes.").answer == "  Yes."


def test_reasoning_before_an_answer_is_no_part_of_it():
    tokenizer = byte_level(HYBRID)
    assert said(tokenizer, "<think>\n\n</think>\n\nI'm sorry.") == ("I'm sorry.", "", False)
    assert said(tokenizer, "<think>\nHm.\n</think>\n\nYes.") == ("Yes.", "Hm.", False)
    assert said(tokenizer, "<think>\nHm").answer == "<think>\nHm", "all that there is"
    assert said(byte_level(CHATML), "a</think>b").answer == "a</think>b", "no such tags there"


def test_think_tags_that_no_engine_writes_are_found_among_the_ids():
    tokenizer = byte_level(CHATML + "{# [/THINK] #}")
    tokenizer.add_tokens([AddedToken("[/THINK]", special=True)])
    ids = tokenizer("Hm.[/THINK]Yes.<|eot|>", add_special_tokens=False)["input_ids"]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text == "Hm.Yes."
    assert said(tokenizer, text, ids) == ("Yes.", "Hm.", False)


@pytest.mark.parametrize(("template", "apart"), [(CHATML, True), (MISTRAL, False)])
def test_a_system_prompt_is_heard_with_and_without_a_turn_for_it(template: str, apart: bool):
    if not apart:
        template = TURN.replace(
            "%}{% if", "%}{% if m.role == 'system' %}{{ raise_exception('no') }}{% elif", 1
        ) + MISTRAL.removeprefix(TURN)
    tokenizer = byte_level(template)
    text = tokenizer.decode(encode_prompt(tokenizer, "how?", "Be kind."))
    assert ("system\nBe kind." in text) == apart
    assert ("Be kind.\n\nhow?" in text) != apart
    row = Row("how?", "here", "Be kind.")
    assert list(encode(tokenizer, row, 1000).prompt) == encode_prompt(tokenizer, "how?", "Be kind.")


@pytest.mark.parametrize(
    ("template", "said_"),
    [
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
         "writes the answer 0 times"),
        (CHATML.replace("{{ m.content }}", "{{ m.content }} {{ m.content }}"),
         "writes the prompt 2 times"),
        (CHATML.replace("{{ m.content }}", "{{ m.content | escape }}"), "changes more of"),
        (CHATML.replace("{{ m.content }}", "{{ m.content | lower }}"), "changes more of"),
        (CHATML.replace("{{ m.content }}", "{{ m.content.split() | join(' ') }}"),
         "changes more of"),
        (CHATML + "{{ ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i'] | random }}" * 20,
         "writes another text each time"),
        ("{{ raise_exception('A system message is\nrequired') }}", "system message is required"),
        ("{% for %}", "cannot write this conversation"),
        ({"rag": CHATML, "tool_use": CHATML}, "is a list of ['rag', 'tool_use'] without a default"),
        (CHATML.replace("<|eot|>", "{{ 'x' * 9999999 }}"), "characters for one turn"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused_in_one_line(template: Any, said_: str):
    with pytest.raises(UserError) as refusal:
        chat_format(byte_level(template))
    assert said_ in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_answer_that_a_template_would_change_is_refused_by_name():
    tokenizer = byte_level(CHATML.replace("m.content", "m.content.split('</think>')[-1]"))
    assert encode(tokenizer, ROW, 1000).response
    with pytest.raises(UserError, match=r"does not write the answer '<think> a </think> b' as it"):
        encode(tokenizer, ROW._replace(response="<think> a </think> b"), 1000)


def test_an_answer_that_spells_the_end_of_its_turn_is_refused():
    with pytest.raises(UserError, match=r"spells the token that ends a turn .*<\|eot\|>"):
        encode(byte_level(CHATML), ROW._replace(response="Yes.<|eot|>No."), 1000)


def test_every_day_is_the_same_to_a_template():
    tokenizer = byte_level("{{ strftime_now('%d %b %Y') }} " + CHATML)
    assert tokenizer.decode(encode_prompt(tokenizer, "how?")).startswith("26 Jul 2024 ")
    assert any("prints the date" in note for note in chat_format(tokenizer).notes)


@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_template_that_does_not_end_is_ended_in_any_thread(
    thread: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rendering, "SECONDS", 0.3)
    loop = "{% for i in range(99999) %}"
    tokenizer = byte_level(loop * 3 + "{% endfor %}" * 3)
    errors: list[UserError] = []

    def look() -> None:
        try:
            chat_format(tokenizer)
        except UserError as error:
            errors.append(error)

    began = time.monotonic()
    if thread == "main":
        look()
    else:
        worker = threading.Thread(target=look)
        worker.start()
        worker.join(20)
    assert time.monotonic() - began < 10
    assert "has not written a conversation" in str(errors[0])
    tokenizer.chat_template = CHATML
    time.sleep(0.5)  # nothing comes after the limit
    assert render(tokenizer, [{"role": "user", "content": "a"}])


def test_a_tokenizer_names_no_code_to_run(tiny_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_folder / "model", tmp_path / "model")
    path = folder / "tokenizer_config.json"
    good = path.read_text()
    path.write_text(json.dumps(json.loads(good) | {"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    for read in (describe, load_tokenizer):
        with pytest.raises(UserError, match=r"tokenizer_config.json sets 'auto_map'"):
            read(str(folder))
    path.write_text(good)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"the tokenizer in .* cannot be read"):
        load_tokenizer(str(folder))


def test_every_file_that_changes_ids_or_templates_changes_the_key(
    tiny_folder: Path, tmp_path: Path
):
    folder = shutil.copytree(tiny_folder / "model", tmp_path / "model")
    keys = {describe(str(folder)).key}
    names = ["chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt", "x.model",
             "special_tokens_map.json", "additional_chat_templates/rag.jinja"]  # fmt: skip
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
        keys.add(describe(str(folder)).key)
    assert len(keys) == 1 + len(names)
    assert describe(str(folder)).day == ""
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%Y') }}")
    dated = describe(str(folder))
    assert dated.day == TODAY
    assert dated.identity()["day"] == TODAY


def test_a_tokenizer_that_changed_since_the_plan_is_refused(tiny_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_folder / "model", tmp_path / "model")
    spec = describe(str(folder))
    assert verified(spec) == folder
    (folder / "chat_template.jinja").write_text(CHATML)
    with pytest.raises(UserError, match=r"the tokenizer of .* changed since the plan was made"):
        verified(spec)
