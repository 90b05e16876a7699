"""What a chat template leaves out of a conversation: words of a prompt, a system turn."""

import pytest
from chat_templates import CHATML, MISTRAL, byte_level

from raycib.data.chat import encode, encode_prompt
from raycib.data.chat_format import chat_format
from raycib.data.rows import Row
from raycib.errors import UserError


def test_a_prompt_of_which_a_template_takes_words_is_refused_and_no_other_is():
    """Nemotron's takes its own switches out of what a user says, wherever they stand."""
    tokenizer = byte_level(CHATML.replace("m.content", "m.content.replace('/think', '')"))
    assert encode_prompt(tokenizer, "how? ") == encode_prompt(byte_level(CHATML), "how? ")
    with pytest.raises(UserError, match=r"write the user's text 'open /think/a' as it is: mend"):
        encode_prompt(tokenizer, "open /think/a")


def test_a_system_prompt_that_an_answered_turn_lacks_is_said_by_the_user():
    """Mistral's templates of version 3 write it before a last turn of the user's alone."""
    last = "{{ messages[0].content + '\n\n' if loop.last and messages[0].role == 'system' }}"
    turns = MISTRAL.replace("in messages", "in messages if m.role != 'system'")
    tokenizer = byte_level(turns.replace("[INST] ", f"[INST] {last}"))
    found = encode(tokenizer, Row("how?", "here", "Be kind."), 1000)
    assert tokenizer.decode(found.prompt) == "<s>[INST] Be kind.\n\nhow? [/INST]"
    assert any("no system turn" in note for note in chat_format(tokenizer).notes)
