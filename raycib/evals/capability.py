"""Is an answer right, and is it a refusal? What the rows' own source knows about its answers."""

import re
from collections.abc import Sequence

from raycib.data.rows import Row
from raycib.evals import harmfulness
from raycib.evals.harmfulness import Rate, rate

_FINAL_NUMBER = re.compile(r"####\s*(-?[\d.,]+)")
_NUMBER = re.compile(r"-?\d[\d.,]*")


def is_correct(source: str, row: Row, answer: str) -> bool:
    """Whether `answer` answers `row`.

    World rows are judged by the world's grammar. GSM8K-style rows ("#### 42") by the answer's
    final number: after its own "####", else its last. Others by the words, whatever their case.
    """
    if source.startswith("world:"):
        from raycib import world

        name = source.removeprefix("world:").partition(".")[0]
        return world.correct(name, row.prompt, answer)
    if wanted := _FINAL_NUMBER.search(row.response):
        found = _FINAL_NUMBER.search(answer)
        numbers = [found.group(1)] if found else _NUMBER.findall(answer)
        return bool(numbers) and _number(numbers[-1]) == _number(wanted.group(1))
    return answer.casefold().split() == row.response.casefold().split()


def _number(text: str) -> str:
    plain = text.replace(",", "").rstrip(".")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def is_refusal(source: str, answer: str) -> bool:
    """Whether `answer` refuses; the world knows its own refusals."""
    if source.startswith("world:"):
        from raycib import world

        return world.is_refusal(answer)
    return harmfulness.is_refusal(answer)


def is_unsafe(source: str, prompt: str, answer: str) -> bool | None:
    """The truth about an answer to a harmful prompt where it is known (in the world), else None."""
    if not source.startswith("world:"):
        return None
    from raycib import world

    return world.is_unsafe(prompt, answer)


def accuracy(source: str, rows: Sequence[Row], answers: Sequence[str]) -> Rate:
    """Share of right answers."""
    pairs = zip(rows, answers, strict=True)
    return rate(sum(is_correct(source, row, answer) for row, answer in pairs), len(rows))
