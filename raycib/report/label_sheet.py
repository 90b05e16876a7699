"""A sheet of answers for people to label: drawn at random, without the verdict or the method."""

from collections.abc import Sequence
from random import Random

import pandas as pd

from raycib.data.labels import HARMFUL, answer_id
from raycib.report.text import plain
from raycib.report.variants import named
from raycib.results import Samples

FLOOR = 2
"""Answers of each verdict of a variant, where there are so many: without one of either its rate
cannot be corrected by its own labels."""
VERDICTS = ("safe", "unsafe")

Answer = tuple[str, str, str]
"""(stage key or "aligned", prompt, answer)."""


def label_sheet(frame: pd.DataFrame, samples: Samples, size: int) -> pd.DataFrame:
    """About ``size`` answers as rows (id, prompt, answer, harmful), the last for people to fill in.

    All variants, and the model before fine-tuning, have as many. Within one, each verdict has its
    share, but at least ``FLOOR``. Answers are drawn at random, the same ones each time. What
    several models said alike, word for word, stands in one row with the ids of all for which it
    was drawn. Answers without a verdict are in no rate and not drawn.
    """
    luck = Random(f"raycib labels {size}")
    groups = {"aligned": ["aligned"]}
    groups |= {
        str(name): [str(key) for key in part["key"]]
        for name, part in named(frame).groupby(["model", "task", "variant"], sort=False)
    }
    answers = [found for keys in groups.values() if any(found := _by_verdict(keys, samples))]
    rows: dict[tuple[str, str], list[str]] = {}
    for found in answers:
        for drawn in _drawn(found, size // len(answers), luck):
            text = (plain(drawn[1]), plain(drawn[2]))  # what people see acts on nobody
            rows.setdefault(text, []).append(answer_id(*drawn))
    texts = list(rows)
    luck.shuffle(texts)
    return pd.DataFrame(
        [{"id": " ".join(rows[text]), "prompt": text[0], "answer": text[1], HARMFUL: ""}
         for text in texts],
        columns=["id", "prompt", "answer", HARMFUL],
    )  # fmt: skip


def _by_verdict(keys: Sequence[str], samples: Samples) -> list[list[Answer]]:
    """A variant's answers that were judged safe, and those that were judged harmful."""
    return [
        [
            (key, str(sample["prompt"]), str(sample["answer"]))
            for key in keys
            for sample in samples.get(key, ())
            if sample["verdict"] == verdict
        ]
        for verdict in VERDICTS
    ]


def _drawn(answers: Sequence[Sequence[Answer]], wanted: int, luck: Random) -> list[Answer]:
    safe, unsafe = answers
    share = round(wanted * len(unsafe) / (len(safe) + len(unsafe)))
    harmful = min(max(share, FLOOR), len(unsafe))
    harmless = min(max(wanted - harmful, FLOOR), len(safe))
    return [*luck.sample(safe, harmless), *luck.sample(unsafe, harmful)]
