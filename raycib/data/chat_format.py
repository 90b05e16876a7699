"""What a chat template puts around an answer, found by having it write conversations of marks.

A template is a program over strings. What training and generation need of it is little: the text
before an answer, which both must share; the text after it, with the token that ends the turn; and
that the answer itself comes through as it is. All of this is looked at once, before anything
starts, and whatever a template does otherwise is mended here by name or refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

from raycib.config import TODAY
from raycib.data.continued import continued, ids_of
from raycib.data.rendering import TemplateError, Turns, asked, fixed_day, name_of, render

_USER, _ANSWER, _SYSTEM = "raycibprompt7d2f91c4", "raycibanswer7d2f91c4", "raycibsystem7d2f91c4"
"""Plain letters: they survive any filter, and no template holds them."""
_HARD = '\n\n  - "One" & <b>tw\u00f6</b> {{ 3 }}\n\n\tEnd'
"""Text that a template would change if it changed any: markup, indentation, braces, capitals."""
_TRIALS = ("Here is the answer.", "here", "4", "I can't.")
"""How answers begin, to see whether the prompt's last token stays its own."""

THINK_TAGS = (
    ("<think>", "</think>"), ("<seed:think>", "</seed:think>"), ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"), ("<|START_THINKING|>", "<|END_THINKING|>"),
)  # fmt: skip


@dataclass(frozen=True)
class ChatFormat:
    """What a template puts around an answer."""

    dropped: str
    """End of the template's opening that its finished turns lack; prompts do without it."""
    added: str
    """What finished turns have instead, before the answer; prompts have it too."""
    before: str
    """White space between prompt and answer: the answer begins with it."""
    closing: str
    """All that the template writes after an answer."""
    ending: str
    """What of it an answer is trained to end with: all up to the end of the turn, with the white
    space after it (most have a line break, which training libraries keep)."""
    end: int
    """Id of the token that ends a turn. Generation stops at it."""
    mark: str
    """Text that shows in a generated answer where its turn ends; "" where none shows."""
    takes_system: bool
    """Whether the template has a system turn; else its text comes before the user's."""
    tags: tuple[str, str] | None
    """What the model's reasoning may stand between, before an answer."""
    notes: tuple[str, ...]
    """What is mended, for people."""

    def turns(self, prompt: str, system: str) -> list[dict[str, str]]:
        """The turns before the model's answer."""
        if system and not self.takes_system:
            prompt, system = f"{system}\n\n{prompt}", ""
        return asked(prompt, system)

    def prompt(self, tokenizer: Any, turns: Turns) -> str:
        """The text up to where the answer begins, the same for training and for generation. Raises
        `TemplateError` where the template leaves out a part of what a turn says."""
        opening = render(tokenizer, turns, opening=True)
        if not opening.endswith(self.dropped):
            raise TemplateError(f"{name_of(tokenizer)} opens some answers otherwise than others")
        for turn in turns:
            if (said := turn["content"].strip()) not in opening:
                raise TemplateError(
                    f"{name_of(tokenizer)} does not write the {turn['role']}'s text {said[:60]!r} "
                    "as it is: mend it, or take that row out"
                )
        return opening.removesuffix(self.dropped) + self.added

    def example(self, tokenizer: Any, turns: Turns, response: str) -> tuple[str, str]:
        """Prompt and answer as texts, the answer with what comes right before and after it.

        White space around the answer may go, as the template has it. Raises `TemplateError` where
        the template writes anything but the prompt, the answer and its usual closing.
        """
        prompt = self.prompt(tokenizer, turns)
        if not response.strip():  # some templates leave an empty turn out
            return prompt, self.before + self.ending
        whole = render(tokenizer, [*turns, {"role": "assistant", "content": response}])
        head, tail = prompt + self.before, self.closing
        answer = whole[len(head) : len(whole) - len(tail)]
        same = (
            whole.startswith(head) and whole.endswith(tail) and answer.strip() == response.strip()
        )
        if not same:
            said = f"{response.strip()[:60]!r}"
            holds = self.tags and self.tags[1] in response
            why = ": take reasoning out of the rows" if holds else ""
            raise TemplateError(
                f"{name_of(tokenizer)} does not write the answer {said} as it is{why}"
            )
        return prompt, self.before + answer + self.ending


_found: "WeakKeyDictionary[Any, tuple[Any, ChatFormat]]" = WeakKeyDictionary()


def chat_format(tokenizer: Any) -> ChatFormat:
    """What the template of `tokenizer` puts around an answer; looked at once for each tokenizer.

    Raises `TemplateError` in one line for a template that cannot be used.
    """
    template, known = _found.get(tokenizer, (None, None))
    if known is None or template != tokenizer.chat_template:
        known = _look(tokenizer)
        _found[tokenizer] = (tokenizer.chat_template, known)
    return known


def _finished(answer: str) -> list[dict[str, str]]:
    return [*asked(_USER), {"role": "assistant", "content": answer}]


def _look(tokenizer: Any) -> ChatFormat:
    _refuse_a_list(tokenizer)
    opening = render(tokenizer, asked(_USER), opening=True)
    whole = render(tokenizer, _finished(_ANSWER))
    for text, mark, what in (
        (opening, _USER, "the prompt"),
        (whole, _USER, "the prompt"),
        (whole, _ANSWER, "the answer"),
    ):
        if (times := text.count(mark)) != 1:
            raise TemplateError(
                f"{name_of(tokenizer)} writes {what} {times} times instead of once: mend it"
            )
    if whole != render(tokenizer, _finished(_ANSWER)):
        raise TemplateError(f"{name_of(tokenizer)} writes another text each time: mend it")
    head, closing = whole.split(_ANSWER)
    dropped, added, before = _opened(tokenizer, opening, head)
    ending, end, mark = _ended(tokenizer, head, closing)
    found = ChatFormat(
        dropped, added, before, closing, ending, end, mark, takes_system=True,
        tags=_think_tags(tokenizer), notes=(),
    )  # fmt: skip
    found = replace(found, takes_system=_takes_system(tokenizer, found))
    _refuse_changes(tokenizer, found)
    found = _with_its_own_tokens(tokenizer, found)
    return replace(found, notes=tuple(_notes(tokenizer, found)))


def _refuse_a_list(tokenizer: Any) -> None:
    named = tokenizer.chat_template
    if isinstance(named, dict) and "default" not in named:
        raise TemplateError(
            f"{name_of(tokenizer)} is a list of {sorted(named)} without a default: leave one "
            "in its tokenizer_config.json"
        )


def _refuse_changes(tokenizer: Any, found: ChatFormat) -> None:
    hard, what = asked(_USER + _HARD), ""
    try:
        if _USER + _HARD not in found.prompt(tokenizer, hard):
            what = "a prompt"
        found.example(tokenizer, hard, _ANSWER + _HARD)
    except TemplateError:
        what = "an answer"
    if what:
        raise TemplateError(
            f"{name_of(tokenizer)} changes more of {what} than the white space around it: mend it"
        )


def _opened(tokenizer: Any, opening: str, head: str) -> tuple[str, str, str]:
    """What a prompt is to lack and to have at the end of the template's `opening` to be all that a
    finished turn has before its answer, `head`; and the white space that is left to the answer."""
    if head.startswith(opening) and not head[len(opening) :].strip():
        return "", "", head[len(opening) :]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(opening, head, strict=False))
    shared = "".join(letter for letter, _ in same)
    if _USER not in shared:
        raise TemplateError(
            f"{name_of(tokenizer)} writes the prompt of a finished turn otherwise than that of an "
            "open one: mend it"
        )
    return opening[len(shared) :], head[len(shared) :], ""


def _ended(tokenizer: Any, head: str, closing: str) -> tuple[str, int, str]:
    """The part of `closing` that is trained, the id of the token that ends the turn, and the text
    before it, which shows in an answer.

    The first control token after the answer ends the turn, and what a template writes after it but
    white space (the opening of the next turn) is no part of an answer. The token that opens the
    conversation's first turn can end none. Without such a token answers end with the eos.
    """
    names = _control(tokenizer)
    in_order = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    first = _first(in_order, head.split(_USER)[0], skip=tokenizer.bos_token)
    last = re.search(in_order, closing) if in_order else None
    if last and (last.group() == tokenizer.eos_token or last.group() != first):
        end, shown, rest = last.group(), closing[: last.start()], closing[last.end() :]
        text = closing[: len(closing) - len(rest.lstrip())]
    else:
        shown = closing[: last.start()].rstrip() if last else closing.rstrip()
        end, text = tokenizer.eos_token, shown + (tokenizer.eos_token or "")
    if end is None:
        raise TemplateError(
            f"{name_of(tokenizer)} ends no turn and the tokenizer has no eos_token: give it one"
        )
    number = tokenizer.convert_tokens_to_ids(end)
    if not names.get(end, True):  # engines leave out special tokens alone
        shown += end
    return text, number, shown.strip()


def _first(in_order: str, text: str, skip: str | None) -> str | None:
    found = (one.group() for one in re.finditer(in_order, text)) if in_order else iter(())
    return next((name for name in found if name != skip), None)


def _control(tokenizer: Any) -> dict[str, bool]:
    """Every added token but white space, and whether it is a special one."""
    eos = {tokenizer.eos_token: True} if tokenizer.eos_token else {}
    added = tokenizer.added_tokens_decoder.values()
    return eos | {str(token): bool(token.special) for token in added if str(token).strip()}


def _takes_system(tokenizer: Any, found: ChatFormat) -> bool:
    """Whether open and finished conversations both have a system turn: Mistral's later templates
    write one before the last turn alone, and only where that is the user's."""
    try:
        prompt, _ = found.example(tokenizer, asked(_USER, _SYSTEM), _ANSWER)
        return prompt.count(_SYSTEM) == 1
    except TemplateError:
        return False


def _think_tags(tokenizer: Any) -> tuple[str, str] | None:
    known = (str(tokenizer.chat_template), *_control(tokenizer))
    return next((tags for tags in THINK_TAGS if any(tags[1] in text for text in known)), None)


def _with_its_own_tokens(tokenizer: Any, found: ChatFormat) -> ChatFormat:
    """The format with white space at the end of a prompt left to the answer, where the answer's
    first token would take it in: "Assistant: " is asked as "Assistant:", and " Yes" answered."""
    whole = [found.example(tokenizer, asked("How are you?"), answer) for answer in _TRIALS]
    if any(ids_of(tokenizer, answer).count(found.end) != 1 for _, answer in whole):
        raise TemplateError(
            f"{name_of(tokenizer)} ends a turn with {found.ending.strip()!r}, of which the "
            "tokenizer makes no token that ends an answer: give it an eos_token"
        )
    for keep in (lambda text: text, lambda text: text.rstrip(" "), str.rstrip):
        cut = [(keep(prompt), (prompt + answer)[len(keep(prompt)) :]) for prompt, answer in whole]
        if all(_in_place(tokenizer, prompt, answer) for prompt, answer in cut):
            left = whole[0][0][len(cut[0][0]) :]
            return _left_to_the_answer(found, left) if left else found
    return found


def _left_to_the_answer(found: ChatFormat, left: str) -> ChatFormat:
    """The format whose prompts lack `left` at their end."""
    kept = found.added[: max(0, len(found.added) - len(left))]
    more = left[: max(0, len(left) - len(found.added))]
    return replace(found, dropped=more + found.dropped, added=kept, before=left + found.before)


def _in_place(tokenizer: Any, prompt: str, answer: str) -> bool:
    """Whether the answer, said after the prompt's own ids, has the tokens that it has in the whole
    text. Those of the prompt's end may be others: some tokenizers write two line breaks before a
    word otherwise than at the end of a text, and models are used with the latter."""
    whole = ids_of(tokenizer, prompt + answer)
    try:
        ids = continued(tokenizer, ids_of(tokenizer, prompt), answer, whole)
    except TemplateError:
        return False
    return whole[len(whole) - len(ids) :] == ids


def _notes(tokenizer: Any, found: ChatFormat) -> Iterator[str]:
    days: list[str] = []

    def told(form: str) -> str:
        days.append(form)
        return fixed_day(form)

    render(tokenizer, _finished(_ANSWER), strftime_now=told)
    if days:
        yield f"the template prints the date: it is told {TODAY} on every day"
    on = render(tokenizer, asked(_USER), opening=True, enable_thinking=True)
    if on != render(tokenizer, asked(_USER), opening=True):
        yield "thinking is switched off"
    if found.dropped.strip() or found.added.strip():
        yield f"prompts end with {found.added!r} instead of the template's {found.dropped!r}"
    if not found.closing.startswith(found.ending):
        shown = found.closing.strip()
        ends = f"a turn with {shown!r}, which is no token" if shown else "no turn"
        yield f"the template ends {ends}: answers end with the eos token"
    elif left_out := found.closing.removeprefix(found.ending).strip():
        yield f"what the template writes after the end of a turn, {left_out!r}, is left out"
    if not found.takes_system:
        yield "the template has no system turn: what one says comes before the user's text"
