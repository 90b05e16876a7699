"""How an answer is compared with a row's own response: three rules, and which of them fits a set.

Free text is compared by none of them: what cannot be measured is not 0 %.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from raycib.data.rows import Row
from raycib.spec import Scorer

SHORT_WORDS, MOST_WORDS = 10, 50
"""Responses of a set of short answers: nine in ten have no more words than the first, none more
than the second (the answers of SQuAD, the longest included)."""

_FIGURES = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    # A sign is one only where nothing stands before it: "5-7" are 5 and 7.
    r"(?P<sign>(?<![\w.)])[-\u2212])?[$€£]?(?P<minus>(?<=[$€£])-)?"
    rf"(?:(?P<whole>[0-9]+) (?=[0-9]+/))?(?P<top>{_FIGURES})(?:/(?P<bottom>0*[1-9][0-9]*))?"
)
_FRAC = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_ALONE = re.compile(
    rf"(?:####)?\s*[-\u2212]?[$€£]?-?(?:[0-9]+ (?=[0-9]+/))?(?:{_FIGURES})(?:/[0-9]+)?\s*%?\.?"
)
"""A line that is a number, as GSM8K ends with: "#### 42"."""
_MARK = re.compile(r"^[ \t]*####(?P<rest>.*)$", re.MULTILINE)
_HEADING = re.compile(r"\s*[0-9]+[.)]\s+\S")
_LONGEST_NUMBER = 300

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
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def chosen_scorer(rows: Sequence[Row]) -> Scorer:
    """The rule that fits all rows of a set: every response is a number or ends in a line
    "#### NUMBER"; every response is a letter, or one of the lettered options of its prompt; all
    responses are short answers on one line (see `SHORT_WORDS`); else none does."""
    for scorer in ("final-number", "multiple-choice"):
        if unfit(scorer, rows) is None:
            return scorer
    responses = [row.response for row in rows]
    words = sorted(len(response.split()) for response in responses)
    usual, longest = words[(9 * len(words) - 1) // 10], words[-1]
    one_line = all(response.strip() and "\n" not in response.strip() for response in responses)
    if one_line and usual <= SHORT_WORDS and longest <= MOST_WORDS:
        return "exact-match"
    return "none"


def unfit(scorer: Scorer, rows: Sequence[Row]) -> int | None:
    """The number, from 1, of the first row whose response a rule cannot score."""
    for number, row in enumerate(rows, 1):
        match scorer:
            case "final-number":
                fits = gold_number(row.response) is not None
            case "multiple-choice":
                fits = bool(_gold_choice(row))
            case "exact-match" | "none":
                fits = scorer == "none" or bool(row.response.strip())
        if not fits:
            return number
    return None


def is_right(scorer: Scorer, row: Row, answer: str) -> bool:
    """Whether `answer` answers `row` by a rule; `ValueError` for "none", which is no rule."""
    match scorer:
        case "final-number":
            wanted = gold_number(row.response)
            return wanted is not None and said_number(answer) == wanted
        case "multiple-choice":
            return said_choice(row.prompt, answer) in _gold_choice(row)
        case "exact-match":
            return any(normal(gold) == normal(answer) for gold in golds(row))
        case "none":
            raise ValueError("free text is not right or wrong")


def golds(row: Row) -> tuple[str, ...]:
    """Every answer that counts as right."""
    return (row.response, *row.other_answers)


# Numbers


def gold_number(response: str) -> Fraction | None:
    """The number that a response is, or that its last line is after "####"; None where it ends
    otherwise."""
    lines = response.strip().splitlines()
    if not lines or not _ALONE.fullmatch(lines[-1].strip()):
        return None
    if len(lines) > 1 and not lines[-1].strip().startswith("####"):
        return None
    return _last(_numbers(lines[-1]))


def said_number(answer: str) -> Fraction | None:
    """An answer's final number: the one after its last "####", unless that is a heading ("#### 1.
    Boil"), else its last. 1,000 is 1000.0, $5 and 5 % are 5, 1/2 is 0.5."""
    marks = [mark["rest"] for mark in _MARK.finditer(answer)]
    for rest in reversed(marks):
        if not _HEADING.match(rest) and (found := _numbers(rest)):
            return found[0]
    return _last(_numbers(answer))


def _last(numbers: Sequence[Fraction]) -> Fraction | None:
    return numbers[-1] if numbers else None


def _numbers(text: str) -> list[Fraction]:
    text = _FRAC.sub(r"\1/\2", text)
    return [_value(found) for found in _NUMBER.finditer(text) if len(found[0]) <= _LONGEST_NUMBER]


def _value(found: re.Match[str]) -> Fraction:
    value = Fraction(found["top"].replace(",", "")) / int(found["bottom"] or 1)
    value += int(found["whole"] or 0)
    return -value if found["sign"] or found["minus"] else value


# Options


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


# Short answers, as in SQuAD's own script (Rajpurkar et al. 2016, evaluate-v1.1.py)


def normal(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space; a text of nothing else,
    such as the answer "A", stays as it is, else it would equal every other."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split()) or " ".join(text.lower().split())


def f1(row: Row, answer: str) -> float:
    """Overlap of an answer's words with the nearest right answer's, in [0, 1]; where either has
    none, whether both have none."""
    return max(_f1(normal(gold).split(), normal(answer).split()) for gold in golds(row))


def _f1(gold: list[str], said: list[str]) -> float:
    if not gold or not said:
        return float(gold == said)
    same = sum((Counter(gold) & Counter(said)).values())
    return 2 * same / (len(gold) + len(said))
