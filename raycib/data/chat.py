"""From rows to tokens: the model's own chat template, and which tokens are scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raycib.data.rows import Row
from raycib.errors import UserError


@dataclass(frozen=True)
class Encoded:
    """One example as token ids: prompt, then response."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids up to where the model's answer begins."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode(tokenizer: Any, row: Row, max_length: int) -> Encoded:
    """Prompt and response ids of a row; the response ends as the template ends a turn.

    Both are tokenised apart, so that training sees the same prompt ids as generation. A row of
    more than `max_length` tokens loses the end of its response, never the prompt; a prompt that
    leaves no room for a response raises UserError.
    """
    user = {"role": "user", "content": row.prompt}
    turns = [user, {"role": "assistant", "content": row.response}]
    opening = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
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
