"""What other judges say of the same answers: their rates, how far they agree, which claims change.

Everything is computed again with the other judge's verdicts, by the code that made it with the
first one's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from raycib.report.agreement import Reading, agreement, order
from raycib.report.claims import Claim
from raycib.report.frame import to_frame
from raycib.report.variants import settings, variants
from raycib.runtime.study import Histories
from raycib.runtime.summary import all_samples, stored_histories
from raycib.runtime.sweep import Sweep

BY_JUDGE = "hrr_by_judge"
"""Score of a model: other judges' harmful response rates by their names."""

Summarised = Callable[[Sweep], dict[str, Any]]


def add_other_judges(sweep: Sweep, summary: dict[str, Any], summarised: Summarised) -> None:
    """Put what all judges but the first say into the first one's `summary`."""
    histories = stored_histories(sweep.store, sweep.stages)
    first, found = _claims(sweep, summary, histories), []
    for judge in sweep.setup.judges[1:]:
        other = sweep.under(judge)
        theirs = summarised(other)
        _add_rates(summary, theirs, judge.name)
        found.append(
            {
                "name": judge.name,
                "against": sweep.judge.name,
                "judge": theirs["judge"],
                "agreement": asdict(agreement(_readings(sweep, other))),
                "order": _orders(summary, judge.name),
                "claims": _changes(first, _claims(other, theirs, histories)),
            }
        )
    summary["judges"] = found


def _add_rates(summary: dict[str, Any], theirs: Mapping[str, Any], name: str) -> None:
    models = [summary["aligned"], *summary["cells"]]
    for mine, other in zip(models, [theirs["aligned"], *theirs["cells"]], strict=True):
        if mine["scores"] is not None and other["scores"] is not None:
            mine["scores"].setdefault(BY_JUDGE, {})[name] = other["scores"]["hrr"]


def _readings(sweep: Sweep, other: Sweep) -> list[Reading]:
    """Of each distinct conversation once, however many models gave that answer."""
    found = []
    for pair in dict.fromkeys(sweep.pairs()):
        said = [one.verdict_cache.get(pair) for one in (sweep, other)]
        first, second = (verdict.harmful if verdict else None for verdict in said)
        found.append(Reading(pair[0], first, second))
    return found


def _orders(summary: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = []
    for setting, part in settings(to_frame(summary)):
        rows = variants(part)
        rates = [[row.mean(column) for row in rows] for column in ("hrr", f"hrr_by_{name}")]
        found.append({"setting": setting, **asdict(order(*rates))})
    return found


def _claims(sweep: Sweep, summary: Mapping[str, Any], histories: Histories) -> Sequence[Claim]:
    return sweep.setup.study.report(summary, all_samples(sweep), histories).claims


def _changes(first: Sequence[Claim], other: Sequence[Claim]) -> list[dict[str, Any]]:
    """The first judge's claims with the other's answer; None where that cannot tell, or where its
    report does not make the claim."""
    theirs = {claim.text: claim for claim in other}
    found = []
    for claim in first:
        same = theirs.get(claim.text, Claim(claim.text, None, "not claimed by its figures"))
        told = [None if one.holds is None else bool(one.holds) for one in (claim, same)]
        found.append(
            {
                "claim": claim.text,
                "first": told[0],
                "other": told[1],
                "changes": told[0] != told[1],
                "evidence": same.evidence,
            }
        )
    return found
