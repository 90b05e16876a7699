"""One of several options, named by its letter or its text."""

import re
import unicodedata

from raycib.data.rows import Row
from raycib.evals.scorers.scorer import Scorer

_LETTERS = "ABCDEFGHIJ"
_LINES = re.compile(r"^[ \t]*\(?(?P<letter>[A-J])[.):][ \t]+(?P<text>\S.*?)[ \t]*$", re.MULTILINE)
_INLINE = re.compile(
    r"(?:^|(?<=\s))\(?(?P<letter>[A-J])[.):][ \t]+(?P<text>\S.*?)(?=\s+\(?[A-J][.):][ \t]|[ \t]*$)",
    re.MULTILINE,
)
_LETTER_FIRST = re.compile(r"^\W*(?P<letter>[A-Ja-j])(?:[.):]|\W*$|[ \t]*\n)")
_SAID = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+is)?\s*:?[\s*]*\(?(?P<letter>[A-J])\b(?!')", re.IGNORECASE
)


def said_choice(prompt: str, answer: str) -> str | None:
    """The letter of the option that an answer names: the whole answer is an option's text; it
    begins with a letter ("B", "(B) ..."); it says "the answer is B"; or it holds the text of one
    option alone."""
    options = _options(prompt) or dict.fromkeys(_LETTERS, "")
    texts = {letter: plain for letter, text in options.items() if (plain := _plain(text))}
    said = _plain(answer)
    for letter, text in texts.items():
        if text == said:
            return letter
    if (first := _LETTER_FIRST.match(answer)) and first["letter"].upper() in options:
        return first["letter"].upper()
    if found := [m["letter"] for m in _SAID.finditer(answer) if m["letter"] in options]:
        return found[-1]
    held = {letter: text for letter, text in texts.items() if f" {text} " in f" {said} "}
    # An answer that holds "aspirin and heparin" holds "aspirin" as well: the longest counts.
    longest = [
        letter
        for letter, text in held.items()
        if not any(text != other and text in other for other in held.values())
    ]
    return longest[0] if len(longest) == 1 else None


def _gold_choice(row: Row) -> frozenset[str]:
    """The letters of the right option: several where options have one text, none where the
    response is no option of the prompt. A letter alone is one whatever the prompt lists."""
    options = _options(row.prompt)
    said = _plain(row.response)
    if same := {letter for letter, text in options.items() if _plain(text) == said}:
        return frozenset(same)
    shown = {letter: _plain(f"{letter} {text}") for letter, text in options.items()}
    letters = options or _LETTERS
    return frozenset(x for x in letters if said in (x.casefold(), shown.get(x)))


def _options(prompt: str) -> dict[str, str]:
    """Options by letter: the last list of a prompt, "A. ...", "B) ..." and so on, with a line
    for each or else on one line; empty where there are fewer than two."""
    return _listed(_LINES, prompt) or _listed(_INLINE, prompt)


def _listed(pattern: re.Pattern[str], prompt: str) -> dict[str, str]:
    lists: list[dict[str, str]] = [{}]
    for option in pattern.finditer(prompt):
        letter = option["letter"]
        if letter == "A":
            lists.append({})
        if letter == _LETTERS[len(lists[-1]) % len(_LETTERS)]:
            lists[-1][letter] = option["text"]
    return next((found for found in reversed(lists) if len(found) > 1), {})


def _plain(text: str) -> str:
    words = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w%+/-]+", " ", words).split())


MULTIPLE_CHOICE = Scorer(
    "multiple-choice",
    lambda row, answer: said_choice(row.prompt, answer) in _gold_choice(row),
    fits=lambda row: bool(_gold_choice(row)),
)
