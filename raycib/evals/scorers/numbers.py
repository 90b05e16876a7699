"""The last number of an answer, as GSM8K is scored (Cobbe et al. 2021): "#### 42" says which."""

import re
from collections.abc import Sequence
from fractions import Fraction

from raycib.data.rows import Row
from raycib.evals.scorers.scorer import Scorer

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


def _is_right(row: Row, answer: str) -> bool:
    return said_number(answer) == gold_number(row.response) is not None


FINAL_NUMBER = Scorer(
    "final-number", _is_right, fits=lambda row: gold_number(row.response) is not None
)
