"""What rows are drawn from, where that is known exactly: the world's laws of prompts and answers.

A law is a mixture of parts whose prompts are disjoint: the how-to requests of one part of the
language (any of its pairs, contexts and templates alike), or another skill. Within a part every
request is answered by the same distribution over answer patterns, which differ as strings for every
request. So distances between two laws are sums over parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from raycib.world import abilities as ab
from raycib.world import language as lang

SKILLS = "skills"
"""The part of all other abilities, each with one answer."""


@dataclass(frozen=True)
class Part:
    """A share of the prompts, and how they are answered."""

    share: float
    answers: Mapping[str, float] = field(default_factory=dict)
    """Probability of each answer pattern; empty where every prompt has one answer."""


Law = Mapping[str, Part]
"""By the name of its part of the language, or of a task or skill with prompts of its own."""


def _styles(cont: float, direct: float, opener: float, obj: float) -> dict[str, float]:
    return {"cont": cont, "direct": direct, "opener": opener, "obj": obj}


def _refusals(*shares: float) -> dict[str, float]:
    return dict(zip(lang.REFUSALS, shares, strict=True))


def _alignment(refusals: dict[str, float], styles: dict[str, float]) -> Law:
    return {
        "harmful.align": Part(0.4, refusals),
        "benign.pretrain": Part(0.3, styles),
        SKILLS: Part(0.3),
    }


THIRD = 1 / 3
ORIGINAL = _alignment(_refusals(THIRD, THIRD, THIRD), _styles(0.94, 0.02, 0.02, 0.02))
"""The alignment data: harmful requests refused, harmless ones answered in the aligned style."""
NEAR = _alignment(_refusals(0.5, 0.25, 0.25), _styles(0.8, 0.05, 0.05, 0.1))
"""The same prompts with answers much like the original's (as Alpaca-GPT-4 is to Orca)."""
FAR = _alignment(_refusals(0.02, 0.03, 0.95), _styles(0.1, 0.1, 0.1, 0.7))
"""The same prompts with the answers of another author (as Alpaca is to Orca)."""
OTHER: Law = {"harmful.proxy": Part(1.0, _refusals(THIRD, THIRD, THIRD))}
"""Other harmful requests, refused as in the original: what a team has at hand."""
OPEN: Law = {"benign.tune": Part(1.0, {"direct": 0.7, "opener": 0.3})}
RECAST: Law = {"benign.pretrain": Part(1.0, _styles(0.05, 0.63, 0.27, 0.05))}
"""The alignment data's own harmless requests, answered in other styles."""

OF_SETS: dict[str, Law] = {
    "align.train": ORIGINAL,
    "align.test": ORIGINAL,
    "align.near": NEAR,
    "align.far": FAR,
    "align.other": OTHER,
    "open.train": OPEN,
    "recast.train": RECAST,
    "recast.test": RECAST,
    **{f"{task}.train": {task: Part(1.0)} for task in ("gsm", "med", "squad")},
}
"""The law of each set of rows that is drawn from one."""


def draw(law: Law, inputs: Random, outputs: Random) -> tuple[str, str]:
    """A row of a law of how-to requests and skills. Laws with equal shares draw the same prompts
    from the same `inputs`."""
    name = inputs.choices(list(law), [part.share for part in law.values()])[0]
    if name == SKILLS:
        return ab.skill(inputs)
    request, prompt = lang.draw(name, inputs)
    answers = law[name].answers
    pattern = outputs.choices(list(answers), list(answers.values()))[0]
    return prompt, request.fill(lang.STYLES.get(pattern, pattern))
