"""Rows that stand in for published sets whose files are out of reach, for a plan alone: as many, of
lengths that were measured, without words."""

import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple
from zlib import crc32

from raycib.data.columns import Row

CHARACTERS = 4
"""Of a token."""


class Lengths(NamedTuple):
    """Deciles of a set's tokens: the shortest, nine between, the longest."""

    prompts: tuple[int, ...]
    responses: tuple[int, ...]


DOLLY = Lengths(
    (4, 7, 8, 10, 11, 14, 17, 44, 143, 317, 1747),
    (11, 47, 76, 101, 128, 154, 193, 269, 363, 646, 5262),
)
GSM8K = Lengths(
    (11, 35, 40, 44, 49, 53, 58, 64, 72, 86, 209), (22, 52, 63, 72, 81, 91, 103, 117, 133, 159, 361)
)
ALPACA = Lengths(
    (4, 8, 10, 11, 13, 14, 16, 19, 24, 31, 147), (1, 10, 18, 32, 62, 103, 150, 207, 275, 345, 500)
)
ADVBENCH = Lengths(
    (7, 9, 10, 11, 12, 12, 13, 14, 15, 17, 29), (8, 12, 13, 14, 15, 16, 16, 17, 18, 20, 36)
)
"""Measured with Llama-3.1's tokenizer on 387 rows of Dolly, all of GSM8K, 999 of Alpaca and all of
AdvBench."""
SETS = {
    "databricks/databricks-dolly-15k:train": (15011, DOLLY),
    "openai/gsm8k@main:train": (7473, GSM8K),
    "openai/gsm8k@main:test": (1319, GSM8K),
    "tatsu-lab/alpaca:train": (52002, ALPACA),
    "vicgalle/alpaca-gpt4:train": (52002, ALPACA),
    "openlifescienceai/medmcqa:train": (182822, GSM8K),
    "openlifescienceai/medmcqa:validation": (4183, GSM8K),
    "rajpurkar/squad_v2:train": (130319, DOLLY),
    "rajpurkar/squad_v2:validation": (11873, DOLLY),
    "garage-bAInd/Open-Platypus:train": (24926, ALPACA),
    "Open-Orca/OpenOrca/1M-GPT4-Augmented.parquet": (994896, ALPACA),
    "bigcode/commitpackft/data/python/data.jsonl": (56025, ALPACA),
    "walledai/AdvBench:train": (520, ADVBENCH),
    "walledai/XSTest:test": (250, ADVBENCH),
}
"""Rows of published sets (of XSTest the safe ones), and whose lengths they are taken to have where
their own were not measured."""
UNKNOWN = (20000, ALPACA)


@cache
def stand_ins(name: str, most: int | None = None) -> list[Row]:
    """Rows for the set of this name (`DATASET:SPLIT`), no more than `most`, in an order drawn
    once."""
    count, lengths = SETS.get(name, UNKNOWN)
    count = min(count, most or count)
    draw = random.Random(count)
    prompts, responses = (_spread(count, deciles, draw) for deciles in lengths)
    rows = zip(range(count), prompts, responses, strict=True)
    own = f"{crc32(name.encode()):08x}"[:6]  # rows of two sets are two rows
    return [Row(f"{own} {n} ".ljust(CHARACTERS * p, "-"), "-" * CHARACTERS * r) for n, p, r in rows]


def known(name: str) -> str:
    """What is assumed of the set of this name, in words."""
    count, _ = SETS.get(name, UNKNOWN)
    nothing = "" if name in SETS else ", of which nothing is known"
    return f"{name}{nothing}: {count:,} rows"


def _spread(count: int, deciles: Sequence[int], draw: random.Random) -> list[int]:
    """Lengths with these deciles, evenly between two of them on a logarithmic scale."""
    found = []
    for number in range(count):
        place, rest = divmod(number * 10 / max(1, count - 1), 1)
        low = deciles[min(int(place), 9)]
        high = deciles[min(int(place) + 1, 10)]
        found.append(round(low * (high / low) ** (rest if place < 10 else 1)))
    draw.shuffle(found)
    return found
