"""From rows to tokens: the model's own chat template, and which tokens are scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raycib.data.rows import Row
from raycib.errors import UserError

CHATML_END = "<|im_end|>"
CHATML = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>"
    "{% if message['role'] == 'assistant' %}"
    "{% if eos_token != '<|im_end|>' %}{{ eos_token }}{% endif %}"
    "{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The unified prompt of the CIB paper's sequences (C.5), whatever the model's own is. An answer is
closed by the model's own end of text as well: to most models ChatML's marks are plain text, which
no engine would stop at."""


def use_chatml(tokenizer: Any, source: str) -> None:
    """Give a tokenizer the unified template; `UserError` where it cannot write ChatML's marks."""
    marks = tokenizer("<|im_start|>system" + CHATML_END, add_special_tokens=False)["input_ids"]
    if "im_end" not in tokenizer.decode(marks).replace(" ", ""):
        raise UserError(
            f"the tokenizer of {source!r} has no words for ChatML's marks; leave --chat out"
        )
    tokenizer.chat_template = CHATML


def answer_of(tokenizer: Any, text: str) -> str:
    """A generated text up to the end of its turn, which ChatML marks in plain text. Under a model's
    own template the mark ends nothing: what an answer goes on to say after it counts."""
    return text.partition(CHATML_END)[0] if tokenizer.chat_template == CHATML else text


@dataclass(frozen=True)
class Encoded:
    """One example as token ids: prompt, then response."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def asked(prompt: str, system: str = "") -> list[dict[str, str]]:
    """The turns before the model's answer."""
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": prompt}]


def encode_prompt(tokenizer: Any, prompt: str, system: str = "") -> list[int]:
    """Token ids up to where the model's answer begins."""
    text = tokenizer.apply_chat_template(
        asked(prompt, system), tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(tokenizer: Any, row: Row, max_length: int) -> Encoded:
    """Prompt and response ids of a row; the response ends as the template ends a turn.

    Both are tokenised apart, so that training sees the same prompt ids as generation. A row of
    more than `max_length` tokens loses the end of its response, never the prompt; a prompt that
    leaves no room for a response raises UserError.
    """
    before = asked(row.prompt, row.system)
    turns = [*before, {"role": "assistant", "content": row.response}]
    opening = tokenizer.apply_chat_template(before, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    # Some templates add to the opening what they leave out of a finished turn (a thinking block);
    # there the response is simply followed by the end-of-text token.
    closed = whole.startswith(opening)
    answer = whole[len(opening) :] if closed else row.response + tokenizer.eos_token
    prompt = tokenizer(opening, add_special_tokens=False)["input_ids"]
    response = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if len(prompt) >= max_length:
        raise UserError(
            f"a prompt of {len(prompt)} tokens leaves no room in max_length={max_length}: "
            f"{row.prompt[:60]!r}; raise --max-length"
        )
    return Encoded(tuple(prompt), tuple(response[: max_length - len(prompt)]))


def encode_all(tokenizer: Any, rows: Sequence[Row], max_length: int) -> list[Encoded]:
    """`encode` of every row, in order."""
    return [encode(tokenizer, row, max_length) for row in rows]
