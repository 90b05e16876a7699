"""Cells replayed many times at once: true answers, a judge that errs, a drawn sample of labels."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from raycib import world
from raycib.report.judge_error import POINTS, Counts, Estimates, JudgeError
from raycib.report.label_sheet import FLOOR
from raycib.world.language import parse, refusal

CONFUSED = ("13 .", "red round bread .", "the color of zorab is", "5 plus 6 is 11 .")
"""Answers that are neither harmful nor refusals."""


class Population(NamedTuple):
    """Answers of cells to the same prompts, (cells, prompts), and what is said of them."""

    harmful: np.ndarray
    """By the world's exact rule."""
    not_refused: np.ndarray
    """What a judge would say that takes for harmful whatever is no refusal."""

    @property
    def truth(self) -> np.ndarray:
        """The rates of the cells."""
        return self.harmful.mean(-1)


def told(answers: Sequence[Sequence[tuple[str, str]]]) -> Population:
    """What the world's rules say of (prompt, answer) by cell."""
    return Population(
        np.array([[world.is_unsafe(*pair) for pair in cell] for cell in answers]),
        np.array([[not world.is_refusal(answer) for _, answer in cell] for cell in answers]),
    )


def world_cells(rates: Sequence[float], confused: float = 0.04) -> Population:
    """Cells of the world's 260 harmful prompts: ``rates`` of them are answered, ``confused`` get an
    answer that makes no sense, and the others are refused."""
    prompts, cells = [row["prompt"] for row in world.rows("harmful.test")], []
    for place, rate in enumerate(rates):
        luck, answers = Random(f"cell {place}"), []
        for prompt in prompts:
            request, draw = parse(prompt), luck.random()
            assert request
            said = luck.choice(CONFUSED) if draw > 1 - confused else refusal(request, luck)
            if draw < rate:
                said = request.answer(luck.choice(("direct", "opener", "cont")))
            answers.append((prompt, said))
        cells.append(answers)
    return told(cells)


def asked(
    population: Population, times: int, rng: np.random.Generator, together: bool = False
) -> Population:
    """The same cells asked other prompts, (times, cells, prompts): drawn with replacement, so that
    the rates of ``population`` are true of them; ``together``, the same ones for all cells."""
    cells, prompts = population.harmful.shape
    place = rng.integers(0, prompts, (times, 1 if together else cells, prompts))
    place = np.broadcast_to(place, (times, cells, prompts))
    return Population(
        *(np.take_along_axis(part[None], place, -1) for part in population)  # type: ignore[arg-type]
    )


def flipped(
    harmful: np.ndarray,
    sensitivity: float | np.ndarray,
    specificity: float | np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Verdicts of a judge that errs at random, alike in all cells or as often as each one's value
    says."""
    luck = rng.random(harmful.shape)
    right = [np.reshape(x, (-1, 1)) for x in (sensitivity, specificity)]
    return np.where(harmful, luck < right[0], luck >= right[1])


def sampled(verdict: np.ndarray, labels: int, rng: np.random.Generator) -> np.ndarray:
    """Which answers are labelled: ``labels`` a cell, as ``label_sheet`` draws them."""
    size, positive = verdict.shape[-1], verdict.sum(-1)
    share = np.round(labels * positive / size).astype(int)
    of_harmful = np.minimum(np.maximum(share, FLOOR), positive)
    of_safe = np.minimum(np.maximum(labels - of_harmful, FLOOR), size - positive)
    place = rng.random(verdict.shape)
    chosen = np.zeros(verdict.shape, dtype=bool)
    for said, wanted in ((verdict, of_harmful), (~verdict, of_safe)):
        rank = np.where(said, place, 2).argsort(-1).argsort(-1)
        chosen |= said & (rank < wanted[..., None])
    return chosen


def counted(harmful: np.ndarray, verdict: np.ndarray, labelled: np.ndarray) -> Counts:
    """Counts of answers (..., prompts); a single row becomes (1, 2)."""

    def by_verdict(what: np.ndarray) -> np.ndarray:
        found = np.stack([(what & ~verdict).sum(-1), (what & verdict).sum(-1)], -1)
        return np.atleast_2d(found.astype(float))

    return Counts(
        by_verdict(np.ones_like(verdict)), by_verdict(labelled), by_verdict(labelled & harmful)
    )


def known(sensitivity: float, specificity: float) -> JudgeError:
    """An error without uncertainty."""
    values = (sensitivity, specificity, sensitivity + specificity - 1)
    exact = (Estimates(*[np.array(value)] * 3) for value in values)
    points = np.ones(POINTS)
    return JudgeError(*exact, sensitivity * points, specificity * points)  # type: ignore[call-arg]


def covered(found: Estimates, truth: np.ndarray) -> np.ndarray:
    """1 where the interval has the truth in it, 0 where not, nan where there is none."""
    inside = (found.low <= truth) & (truth <= found.high)
    return np.where(np.isfinite(found.value), inside, np.nan)
