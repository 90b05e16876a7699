"""What a judge reads, as token ids that the judged answer cannot forge.

A chat template joins strings, so an answer that contains "<|eot_id|>" ends its own turn. Here the
template is rendered around two markers and cut at them; its pieces are encoded with control tokens
recognised, prompt and answer by a second tokenizer that knows none, and lists of ids are joined.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raycib.data.tokenizer import open_tokenizer
from raycib.errors import UserError
from raycib.evals.chat_prompt import defuse
from raycib.evals.judge_asking import CONVERSATION, Asking
from raycib.evals.judge_tokens import (
    control_ids,
    without_added_tokens,
    without_side_effects,
)

_LEAST_ROOM = 8
"""Ids of prompt and answer together; a window has to hold some of both."""

_MARKERS = ("raycibprompt7d2f91c4", "raycibanswer7d2f91c4")
"""Stand for prompt and answer while the template is rendered; plain letters survive any filter."""


@dataclass(frozen=True)
class JudgeInput:
    """One conversation as the judge reads it."""

    ids: tuple[int, ...]
    cut: int = 0
    """Ids left out of the middle of the prompt because it took more than half of the room."""


class Forged(ValueError):
    """A text of which the judge's tokenizer makes control tokens: it must not be judged."""


class JudgePrompt:
    """The judge's chat template around a prompt and an answer.

    For ordinary text the ids are those of `apply_chat_template`: white space of the template beside
    a slot is encoded together with the slot's text where byte-level tokenizers would join the two,
    and text is stripped where the template strips it.
    """

    def __init__(
        self,
        tokenizer_folder: str | Path,
        *,
        max_length: int | None = None,
        assistant_prefix: str = "",
        asking: Asking = CONVERSATION,
    ) -> None:
        """Read the tokenizer in `tokenizer_folder` (local files only).

        `max_length`: ids the judge may be given, its own output not included; None: no limit.
        `assistant_prefix`: text put after the template unless it ends so, for judges that always
        begin alike (Llama-Guard-3 says two newlines first). `asking`: what stands around prompt
        and answer; where that is a text, delimiters in the two are broken up. Raises `UserError`
        for a template that does not show prompt and answer exactly once each, and for one that
        leaves them no room.
        """
        from tokenizers import Tokenizer

        tokenizer = open_tokenizer(tokenizer_folder)
        if tokenizer.chat_template is None and not asking.bare:
            raise UserError(f"the judge's tokenizer in {tokenizer_folder} has no chat template")
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        spec |= {"truncation": None, "padding": None}  # left there by whoever saved it
        self.max_length = max_length
        self._defused = bool(asking.text)
        self.control = control_ids(tokenizer, spec)
        self._plain = Tokenizer.from_str(json.dumps(without_added_tokens(spec)))
        inner = Tokenizer.from_str(json.dumps(without_side_effects(spec)))
        first = Tokenizer.from_str(json.dumps(spec))

        pieces, self._strips = _template_pieces(tokenizer, tokenizer_folder, asking)
        pieces[-1] = _ending_in(pieces[-1], assistant_prefix)
        bare, self._glue = _give_white_space(pieces)
        self._pieces = [
            (inner if i else first).encode(piece, add_special_tokens=False).ids if piece else []
            for i, piece in enumerate(bare)
        ]
        if asking.bare:  # no template writes what the tokenizer begins a text with
            self._pieces[0] = _begun(first.encode(bare[0]).ids, self._pieces[0])
        self.template_length = sum(map(len, self._pieces))
        if max_length is not None and max_length - self.template_length < _LEAST_ROOM:
            raise UserError(
                f"the template of the judge in {tokenizer_folder} alone takes "
                f"{self.template_length} of its {max_length} tokens; it needs a longer context"
            )

    def render(self, prompt: str, answer: str) -> JudgeInput:
        """The whole conversation's ids, however many. Raises `Forged`."""
        return self._join(*self._texts(prompt, answer), 0)

    def windows(self, prompt: str, answer: str) -> list[JudgeInput]:
        """The conversation in inputs of at most `max_length` ids that cover the whole answer.

        One where it fits. Otherwise each shows the prompt and a part of the answer; parts overlap
        by a quarter, so that whatever is shorter than that is whole in one of them. The prompt
        loses its middle only beyond half of the room there is. Raises `Forged`.
        """
        asked, answered = self._texts(prompt, answer)
        if self.max_length is None:
            return [self._join(asked, answered, 0)]
        room = self.max_length - self.template_length
        shown = _without_middle(asked, max(room // 2, room - len(answered)))
        size = room - len(shown)
        step = max(1, size - size // 4)
        last = max(0, len(answered) - size)
        starts = [*range(0, last, step), last]
        cut = len(asked) - len(shown)
        return [self._join(shown, answered[start : start + size], cut) for start in starts]

    def _texts(self, prompt: str, answer: str) -> tuple[list[int], list[int]]:
        (before_p, after_p), (before_a, after_a) = self._glue
        if self._defused:
            prompt, answer = defuse(prompt)[0], defuse(answer)[0]
        return (
            self._encode(before_p, prompt, after_p),
            self._encode(before_a, answer, after_a),
        )

    def _join(self, prompt: list[int], answer: list[int], cut: int) -> JudgeInput:
        head, middle, tail = self._pieces
        return JudgeInput((*head, *prompt, *middle, *answer, *tail), cut)

    def _encode(self, before: str, text: str, after: str) -> list[int]:
        """Ids of a text, among them no control token."""
        if self._strips:
            text = text.strip()
        joined = (before + text + after).encode("utf-8", errors="replace").decode()
        ids = self._plain.encode(joined, add_special_tokens=False).ids
        if forged := self.control.intersection(ids):
            raise Forged(
                f"the ids {sorted(forged)} of a judged text are control tokens of the judge; its"
                " tokenizer makes them from plain text"
            )
        return ids


def _template_pieces(tokenizer: Any, folder: str | Path, asking: Asking) -> tuple[list[str], bool]:
    """The template's text before, between and after the slots; whether it strips what fills them.

    Some templates take a message as a string, others as a list of parts: the form that shows both
    markers is used.
    """
    why = []
    for parts in (False, True):
        try:
            prompt, answer = _MARKERS
            rendered = _render(tokenizer, prompt, answer, parts, asking)
            padded = _render(tokenizer, f" {prompt} ", f" {answer} ", parts, asking)
        except Exception as problem:  # a template is a program: it may raise anything
            why.append(f"{type(problem).__name__}: {problem}")
            continue
        seen = [rendered.count(marker) for marker in _MARKERS]
        first, second = (rendered.find(marker) for marker in _MARKERS)
        if seen == [1, 1] and first < second:
            head, rest = rendered.split(_MARKERS[0])
            middle, tail = rest.split(_MARKERS[1])
            return [head, middle, tail], padded == rendered
        why.append(f"the prompt appears {seen[0]} times and the answer {seen[1]} times")
    raise UserError(
        f"the chat template in {folder} cannot be used to judge: prompt and answer must each appear"
        f" once, in this order (text content: {why[0]}; content as parts: {why[1]})"
    )


def _render(tokenizer: Any, prompt: str, answer: str, parts: bool, asking: Asking) -> str:
    if asking.bare:
        return asking.filled(prompt, answer)

    def content(text: str) -> Any:
        return [{"type": "text", "text": text}] if parts else text

    turns = [turn | {"content": content(turn["content"])} for turn in asking.turns(prompt, answer)]
    return tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, **asking.settings
    )


def _begun(whole: list[int], ids: list[int]) -> list[int]:
    """`ids` with what stands before them in the `whole` that a tokenizer makes of their text."""
    starts = range(len(whole) - len(ids) + 1)
    start = next(k for k in starts if whole[k : k + len(ids)] == ids)
    return whole[: start + len(ids)]


def _ending_in(text: str, ending: str) -> str:
    """The text with as much of `ending` put after it as it lacks."""
    there = next(k for k in range(len(ending), -1, -1) if text.endswith(ending[:k]))
    return text + ending[there:]


def _give_white_space(pieces: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The pieces without the white space that tokenizers join to a slot's text, and that space.

    Byte-level tokenizers join spaces to the word after them and newlines to the text before them.
    """
    head, middle, tail = pieces
    if not middle.strip():
        raise UserError("the chat template has nothing but white space between prompt and answer")
    head, before_prompt = _cut_at(head, len(head.rstrip(" ")))
    after_prompt, middle = _cut_at(middle, _newlines(middle))
    middle, before_answer = _cut_at(middle, len(middle.rstrip(" ")))
    after_answer, tail = _cut_at(tail, _newlines(tail))
    return [head, middle, tail], [(before_prompt, after_prompt), (before_answer, after_answer)]


def _cut_at(text: str, place: int) -> tuple[str, str]:
    return text[:place], text[place:]


def _newlines(text: str) -> int:
    """How many characters of white space lead up to the last of the leading newlines."""
    found = re.match(r"\s*\n", text)
    return found.end() if found else 0


def _without_middle(ids: list[int], length: int) -> list[int]:
    """At most `length` ids: the beginning and the end."""
    if len(ids) <= length:
        return ids
    end = length // 2
    return ids[: length - end] + ids[len(ids) - end :]
