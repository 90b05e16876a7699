"""What a sweep is evidence of: an acceptance card for every method."""

from collections.abc import Sequence
from typing import Literal

from raycib.results.part import Part

Verdict = Literal["accepted", "rejected", "undecided"]
PartName = Literal["reliability", "fresh prompts", "transfer", "mechanism"]
Unit = Literal["points", "%", ""]
"""Of what people read; values are fractions where it is one of the first two."""


class Check(Part):
    """A figure held against thresholds that are fixed before the data are seen."""

    name: str
    verdict: Verdict
    value: float | None = None
    low: float | None = None
    """Ends of the 95 % interval; None where there is none."""
    high: float | None = None
    accepts: float | None = None
    """Accepted where the whole interval is below this, or above it where `higher`; None where it is
    unless rejected."""
    rejects: float | None = None
    """Rejected where the whole interval is on the other side of this."""
    higher: bool = False
    """Whether higher is better."""
    unit: Unit = "points"
    seeds: int = 0
    prompts: int = 0
    needs: str = ""
    """What is missing to decide it, and what gives it."""


class CardPart(Part):
    """One of the four questions."""

    name: PartName
    verdict: Verdict
    """Rejected where a check is, else undecided where one is."""
    checks: Sequence[Check]


class Card(Part):
    """Of a method, or of a form of one, over its strengths."""

    method: str
    """The series."""
    setting: str = ""
    """Model and task that the strength is chosen on; "" where there is one."""
    against: str
    """The row that it is held against."""
    strengths: Sequence[float] = ()
    """Chosen for each seed, in their order; empty where none can be."""
    verdict: Verdict
    """As a part's: accepted where all four parts are."""
    parts: Sequence[CardPart] = ()
