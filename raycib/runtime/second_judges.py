"""What other judges say of the same answers: their rates, how far they agree, which claims change.

Everything is computed again with the other judge's verdicts, by the code that made it with the
first one's.
"""

from collections.abc import Callable, Sequence

from raycib.report.agreement import Reading, agreement, order
from raycib.report.claims import Claim
from raycib.report.frame import to_frame
from raycib.report.variants import settings, variants
from raycib.results import Histories, OtherClaim, OtherJudge, Results, RowOrder, Scores
from raycib.runtime.summary import all_samples, stored_histories
from raycib.runtime.sweep import Sweep


def with_other_judges(
    sweep: Sweep, results: Results, summarised: Callable[[Sweep], Results]
) -> Results:
    """The first judge's results with what all the others say."""
    histories = stored_histories(sweep.store, sweep.stages)
    first, found = _claims(sweep, results, histories), []
    for judge in sweep.setup.judges[1:]:
        other = sweep.under(judge)
        theirs = summarised(other)
        results = _with_rates(results, theirs, judge.name)
        found.append(
            OtherJudge(
                name=judge.name,
                against=sweep.judge.name,
                judge=theirs.judge,
                agreement=agreement(_readings(sweep, other)),
                order=_orders(results, judge.name),
                claims=_changes(first, _claims(other, theirs, histories)),
            )
        )
    return results.but(judges=found)


def _with_rates(results: Results, theirs: Results, name: str) -> Results:
    def both(mine: Scores | None, other: Scores | None) -> Scores | None:
        if mine is None or other is None:
            return mine
        return mine.but(hrr_by_judge={**mine.hrr_by_judge, name: other.hrr})

    aligned = both(results.aligned.scores, theirs.aligned.scores)
    cells = [
        mine.but(scores=both(mine.scores, other.scores))
        for mine, other in zip(results.cells, theirs.cells, strict=True)
    ]
    return results.but(aligned=results.aligned.but(scores=aligned), cells=cells)


def _readings(sweep: Sweep, other: Sweep) -> list[Reading]:
    """Of each distinct conversation once, however many models gave that answer."""
    found = []
    for pair in dict.fromkeys(sweep.pairs()):
        said = [one.verdict_cache.get(pair) for one in (sweep, other)]
        first, second = (verdict.harmful if verdict else None for verdict in said)
        found.append(Reading(pair[0], first, second))
    return found


def _orders(results: Results, name: str) -> list[RowOrder]:
    found = []
    for setting, part in settings(to_frame(results)):
        rows = variants(part)
        rates = [[row.mean(column) for row in rows] for column in ("hrr", f"hrr_by_{name}")]
        found.append(order(*rates).but(setting=setting))
    return found


def _claims(sweep: Sweep, results: Results, histories: Histories) -> Sequence[Claim]:
    return sweep.setup.study.report(results, all_samples(sweep), histories).claims


def _changes(first: Sequence[Claim], other: Sequence[Claim]) -> list[OtherClaim]:
    """The first judge's claims with the other's answer; None where that cannot tell, or where its
    report does not make the claim."""
    theirs = {claim.text: claim for claim in other}
    found = []
    for claim in first:
        same = theirs.get(claim.text, Claim(claim.text, None, "not claimed by its figures"))
        told = [None if one.holds is None else bool(one.holds) for one in (claim, same)]
        found.append(
            OtherClaim(
                claim=claim.text,
                first=told[0],
                other=told[1],
                changes=told[1] is not None and told[0] != told[1],
                evidence=same.evidence,
            )
        )
    return found
