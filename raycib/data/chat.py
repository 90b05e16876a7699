"""From rows to tokens: the model's own chat template, and which tokens are scored."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

from raycib.data.chat_format import chat_format
from raycib.data.continued import continued, ids_of
from raycib.data.rendering import asked
from raycib.data.rows import Row
from raycib.errors import UserError

__all__ = ["CHATML", "Encoded", "Said", "asked", "encode", "encode_prompt", "said"]

CHATML = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>"
    "{% if message['role'] == 'assistant' %}"
    "{% if eos_token != '<|im_end|>' %}{{ eos_token }}{% endif %}"
    "{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The unified prompt of the CIB paper's sequences (C.5), whatever the model's own is. An answer is
closed by the model's own end of text as well: to most models ChatML's marks are plain text, which
no engine would stop at. A row's own system prompt takes the place of the one of all."""


def use_chatml(tokenizer: Any, source: str) -> None:
    """Give a tokenizer the unified template; `UserError` where it cannot write ChatML's marks."""
    marks = tokenizer("<|im_start|>system<|im_end|>", add_special_tokens=False)["input_ids"]
    if "im_end" not in tokenizer.decode(marks).replace(" ", ""):
        raise UserError(
            f"the tokenizer of {source!r} has no words for ChatML's marks; leave --chat out"
        )
    tokenizer.chat_template = CHATML


class Said(NamedTuple):
    """A generated text, taken apart."""

    answer: str
    """What is judged and scored."""
    reasoning: str
    """What stood before it between think tags; nobody but the model's user would see it."""
    ended: bool
    """Whether a mark in plain text ends the turn, which no engine stops at."""


def said(tokenizer: Any, text: str, ids: Sequence[int] = ()) -> Said:
    """A generated text up to the end of its turn, without the reasoning before the answer.

    Reasoning that has not come to its end is no answer, but all that there is: it is left as it
    stands. Think tags mean something only to a model that has them in its template or vocabulary;
    where they are special tokens, which no engine writes, they are found among the `ids`.
    """
    form = chat_format(tokenizer)
    text = text.removeprefix(form.before)
    ended = bool(form.mark) and form.mark in text
    if ended:
        text = text.partition(form.mark)[0]
    if form.tags is None:
        return Said(text, "", ended)
    first, ends = form.tags
    number = tokenizer.convert_tokens_to_ids(ends)
    if ends not in text and number != tokenizer.unk_token_id and number in ids:
        place = list(ids).index(number)
        both = (ids[:place], ids[place + 1 :])
        text = ends.join(tokenizer.decode(p, skip_special_tokens=True) for p in both)
    if ends not in text:
        return Said(text, "", ended)
    reasoning, _, answer = text.partition(ends)
    return Said(answer.lstrip(), reasoning.strip().removeprefix(first).strip(), ended)


@dataclass(frozen=True)
class Encoded:
    """One example as token ids: prompt, then response."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def encode_prompt(tokenizer: Any, prompt: str, system: str = "") -> list[int]:
    """Token ids up to where the model's answer begins."""
    form = chat_format(tokenizer)
    return ids_of(tokenizer, form.prompt(tokenizer, form.turns(prompt, system)))


def encode(tokenizer: Any, row: Row, max_length: int) -> Encoded:
    """Prompt and response ids of a row; the response ends as the template ends a turn.

    The ids are those of the whole text, cut behind the prompt's, which are the ones that generation
    is given. Where a token of the whole text reaches over the cut, the response is what a model can
    say after the prompt's own ids: the same text, begun with other tokens. A row of more than
    `max_length` tokens is `shortened`. Raises `UserError` for an answer that the template would not
    write as it is.
    """
    form = chat_format(tokenizer)
    opening, answer = form.example(tokenizer, form.turns(row.prompt, row.system), row.response)
    prompt = ids_of(tokenizer, opening)
    whole = ids_of(tokenizer, opening + answer)
    response = continued(tokenizer, prompt, answer, whole)
    if response.count(form.end) != 1:
        raise UserError(
            f"the answer {row.response[:60]!r} spells the token that ends a turn "
            f"({tokenizer.decode([form.end])!r}): take it out of the rows"
        )
    return shortened(tokenizer, Encoded(tuple(prompt), tuple(response)), max_length)


def shortened(tokenizer: Any, whole: Encoded, max_length: int) -> Encoded:
    """An example of at most `max_length` tokens: the answer loses its end, never the end of its
    turn, and the prompt nothing. UserError where not one token of the answer would be left."""
    if len(whole) <= max_length:
        return whole
    end = end_of_turn(tokenizer)
    room = max_length - len(whole.prompt) - len(end)
    if room < 1:
        raise UserError(
            f"a prompt of {len(whole.prompt)} tokens leaves no room for an answer in "
            f"max_length={max_length}; raise --max-length"
        )
    return Encoded(whole.prompt, (*whole.response[:room], *end))


def end_of_turn(tokenizer: Any) -> tuple[int, ...]:
    """Ids that close every response: what the template puts after an answer's text."""
    one, other = (encode(tokenizer, Row("a", text), sys.maxsize).response for text in "ab")
    if one == other:  # words that the tokenizer does not know
        return one[1:]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one[::-1], other[::-1], strict=False))
    return tuple(token for token, _ in same)[::-1]
