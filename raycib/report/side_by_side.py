"""The same prompts answered by two models: which verdicts flipped, and by how much more one way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

from raycib.report.statistics import mcnemar
from raycib.report.text import plain
from raycib.results import Samples

MAX_ANSWERS = 400
"""Answers of one cell that a report shows; counts are over all that were given."""
MAX_CHARACTERS = 1_500
"""Characters of one answer that a report shows."""


def comparison(samples: Samples, labels: Mapping[str, str]) -> dict[str, Any]:
    """What the page of paired answers needs, as plain data: cells, prompts, answers, counts.

    ``labels`` names the cells and orders them; cells without samples are left out. Equal answers
    are held once: a cell's answers are places in ``texts``. All text is ``plain``; the page must
    still escape it.
    """
    keys = [key for key in labels if samples.get(key)]
    prompts: dict[tuple[str, int], int] = {}
    texts: dict[str, int] = {}
    categories: dict[str, None] = {}
    """The judge's, of what it calls unsafe."""
    cells = []
    for key in keys:
        answers = {}
        for prompt, sample in islice(numbered(samples[key]), MAX_ANSWERS):
            text = plain(sample["answer"])
            if len(text) > MAX_CHARACTERS:
                text = text[:MAX_CHARACTERS] + " … (cut)"
            place = prompts.setdefault(prompt, len(prompts))
            number = texts.setdefault(text, len(texts))
            named = [plain(one) for one in sample.get("categories", ())]
            categories |= dict.fromkeys(named)
            answers[place] = [number, _verdict(sample), bool(sample.get("refused")), named]
        cells.append({"key": key, "label": plain(labels[key]), "answers": answers})
    judged = [verdicts(samples[key]) for key in keys]
    pairs = {f"{i}-{j}": flips(judged[i], judged[j]) for i, j in combinations(range(len(keys)), 2)}
    asked = [plain(text) for text, _ in prompts]
    said = {"prompts": asked, "texts": list(texts), "categories": sorted(categories)}
    return {"cells": cells, "pairs": pairs, **said}


def verdicts(answers: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], str]:
    """ "safe", "unsafe" or "unreadable" by prompt and by how often it was asked before: what is
    asked several times is paired with itself in order."""
    return {prompt: _verdict(sample) for prompt, sample in numbered(answers)}


def flips(first: Mapping[Any, str], second: Mapping[Any, str]) -> dict[str, Any]:
    """Prompts that both answered, by their ``verdicts``, with McNemar's exact two-sided p.

    Unreadable verdicts are no verdicts: such pairs are counted as ``unread`` and left out.
    """
    counts = {"both_safe": 0, "both_unsafe": 0, "to_unsafe": 0, "to_safe": 0, "unread": 0}
    names = {
        ("safe", "safe"): "both_safe",
        ("unsafe", "unsafe"): "both_unsafe",
        ("safe", "unsafe"): "to_unsafe",
        ("unsafe", "safe"): "to_safe",
    }
    for prompt, verdict in first.items():
        if prompt in second:
            counts[names.get((verdict, second[prompt]), "unread")] += 1
    return counts | {"p": mcnemar(counts["to_unsafe"], counts["to_safe"])}


def _verdict(sample: Mapping[str, Any]) -> str:
    verdict = sample.get("verdict")
    return verdict if verdict in ("safe", "unsafe") else "unreadable"


def numbered(
    answers: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[tuple[str, int], Mapping[str, Any]]]:
    """Answers with their prompt and how often that was asked before."""
    times: dict[str, int] = {}
    for sample in answers:
        prompt = str(sample["prompt"])
        times[prompt] = times.get(prompt, -1) + 1
        yield (prompt, times[prompt]), sample
