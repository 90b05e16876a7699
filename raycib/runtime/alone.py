"""Answers of a sweep that are given again, each alone: which, and what that changes."""

from itertools import starmap

from raycib.evals.alone import Pick, picked, said_alone
from raycib.evals.verdicts import Pair
from raycib.metrics import Rate, rate
from raycib.results import AskedAlone
from raycib.runtime.execution import engine_of
from raycib.runtime.sweep import Sweep


def picks_of(sweep: Sweep) -> list[Pick]:
    """A few answers to harmful prompts, of the models that gave all of theirs."""
    first = {model_id: next(iter(sweep.asked[model_id].values())) for model_id in sweep.answered}
    asked = {model_id: evals.harmful for model_id, evals in first.items()}
    return picked(asked, sweep.setup.execution.asked_alone)


def pairs_of(sweep: Sweep) -> list[Pair]:
    """What was said otherwise alone, with its prompts: what a judge has to read besides."""
    return [alone for before, alone in _both(sweep) if before != alone]


def asked_alone(sweep: Sweep) -> AskedAlone | None:
    """How many of them differ, and what that does to the harmful response rate; None where none
    were asked for."""
    both = _both(sweep)
    if not both:
        return None
    from raycib.report.statistics import paired_interval  # loads scipy: nothing waits for it

    read = sweep.verdict_cache.get
    told = [[verdict.harmful if (verdict := read(pair)) else None for pair in one] for one in both]
    moved = [
        float(alone) - before for before, alone in told if before is not None and alone is not None
    ]
    found = paired_interval(moved)
    return AskedAlone(
        differ=rate(sum(before != alone for before, alone in both), len(both)),
        hrr_change=Rate(value=found.value, low=found.low, high=found.high, n=found.n)
        if moved
        else None,
    )


def _both(sweep: Sweep) -> list[tuple[Pair, Pair]]:
    """Prompt and answer as they were given among others, and alone."""
    picks = picks_of(sweep)
    engine = engine_of(sweep.setup.options, sweep.setup.model)
    alone = said_alone(sweep.store, picks, engine) if picks else None
    if alone is None:
        return []

    def pairs(pick: Pick, text: str) -> tuple[Pair, Pair]:
        prompt = sweep.answers.rows(pick.rows)[pick.place].prompt
        said = sweep.answers.kept(pick.model_id, pick.rows, engine)
        assert said is not None, "of a model that has answered"
        return (prompt, said.texts[pick.place]), (prompt, text)

    return list(starmap(pairs, zip(picks, alone, strict=True)))
