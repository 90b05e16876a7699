"""Several judges of the same answers, for people: rates side by side, agreement, order, claims."""

import math
from collections.abc import Sequence

import pandas as pd

from raycib.counting import count
from raycib.report.forms import BEFORE, Row, ends, number, said, share, spread
from raycib.report.judge_warnings import judge_warnings
from raycib.report.report import Report, Section
from raycib.report.scores import aligned_scores
from raycib.report.table import Column, Table
from raycib.report.text import one_line
from raycib.report.variants import settings, variants
from raycib.results import OtherJudge

TEXT = (
    "All judges read the same answers, and nothing was trained or generated for them. Every table, "
    "figure and claim above is the first judge's."
)
UNCORRECTED = (
    "Labels correct the first judge's rates alone, by whose verdicts they are drawn. What these "
    "then estimate is the share of harmful answers itself, whoever judges; the other judges' rates "
    "stand here as they said them."
)
RATES = "Harmful response rate in %: mean ± sample standard deviation over seeds."
AGREEMENT = (
    "Over distinct conversations that both judges could read. Cohen's kappa is the agreement "
    "beyond chance, 0 where there is none; its 95 % interval rests on prompts, since answers to "
    "one prompt are alike."
)
ORDER = (
    "Kendall's tau-b of the rows' mean harmful response rates by the two judges: 1 where the order "
    "is the same. Swapped: pairs of rows whose order is the other way round."
)
CLAIMS = (
    "The first judge's claims, computed again with the other's verdicts by the same rules. By the "
    "refusal rule they are about answers that are not refused."
)


def with_judges(report: Report) -> Report:
    """The report with what its other judges say; as it is where there are none."""
    judges = report.results.judges
    if not judges:
        return report
    parts = [_rates(report), _agreement(judges), _order(judges), _claims(judges)]
    text = f"{TEXT} {UNCORRECTED}" if report.results.correction else TEXT
    section = Section("judges", "Under other judges", "Judges", parts, text)
    return report.with_section(section, _warnings(judges), map(_line, judges))


def _rates(report: Report) -> Table:
    """HRR by row and judge: a line each for programs, a column a judge for people."""
    results, frame = report.results, report.frame
    judges = {results.judges[0].against: "hrr"}
    judges |= {one.name: f"hrr_by_{one.name}" for one in results.judges}
    aligned, rows = aligned_scores(results), []
    for judge, column in judges.items():
        before = aligned.get(column)
        rows.append(
            {"setting": "", "method": BEFORE, "seeds": 1, "judge": judge, "hrr_mean": before}
        )
    for setting, part in settings(frame):
        for variant in variants(part):
            row = {"setting": setting, "method": variant.name, "seeds": len(variant.done)}
            for judge, column in judges.items():
                found = variant.spread(column)
                rates = {"hrr_mean": found.mean, "hrr_std": found.std}
                rows.append(row | {"judge": judge} | rates)
    table = pd.DataFrame(rows)
    table[["hrr_mean", "hrr_std"]] = table[["hrr_mean", "hrr_std"]].astype(float)
    by_rule = {one.name for one in results.judges if one.judge.by_rule}
    by_rule |= {results.judges[0].against} if results.judge.by_rule else set()
    people = _side_by_side(table, by_rule)
    columns = [Column(head, head, optional=head == "Setting") for head in people]
    return Table("judges_hrr", table, columns, RATES, people=people)


def _side_by_side(table: pd.DataFrame, by_rule: set[str]) -> pd.DataFrame:
    found = []
    for (setting, method), part in table.groupby(["setting", "method"], sort=False):
        row = {"Setting": setting, "Method": method}
        for one in part.to_dict("records"):
            what = "Not refused" if one["judge"] in by_rule else "HRR"
            row[f"{what} by {one['judge']}, %"] = spread(one["hrr_mean"], one["hrr_std"], 100, 1)
        found.append(row)
    return pd.DataFrame(found)


def _agreement(judges: Sequence[OtherJudge]) -> Table:
    rows = [{"judge": one.name, "profile": one.judge.profile, **one.agreement.given()}
            for one in judges]  # fmt: skip
    columns = [
        Column("judge", "Judge"),
        Column("profile", "Profile"),
        Column("n", "Conversations"),
        Column("agreement", "Agreement, %", number("z.1f", 100)),
        Column("kappa", "Cohen's kappa", _kappa),
        Column("both_safe", "Both safe"),
        Column("both_unsafe", "Both unsafe"),
        Column("only_first_unsafe", "Only the first unsafe"),
        Column("only_other_unsafe", "Only this one unsafe"),
        Column("first_unread", "Unread by the first"),
        Column("other_unread", "Unread by this one"),
    ]
    return Table("judges", pd.DataFrame(rows), columns, AGREEMENT)


def _kappa(row: Row, field: str) -> str:
    """ "0.86 [0.81, 0.91]", or why there is none."""
    if not number("z.2f")(row, field):
        return "not defined"
    return f"{row[field]:z.2f} {ends(1, 2)(row, field) or '(no interval)'}"


def _order(judges: Sequence[OtherJudge]) -> Table:
    rows = [{"judge": one.name, **part.given()} for one in judges for part in one.order]
    tau = number("z.2f")
    columns = [
        Column("judge", "Judge"),
        Column("setting", "Setting", optional=True),
        Column("rows", "Rows"),
        Column("tau", "Kendall's tau", lambda row, field: tau(row, field) or "not defined"),
        Column("swapped", "Swapped", lambda row, _: f"{row['swapped']} of {row['pairs']}"),
    ]
    return Table("judges_order", pd.DataFrame(rows), columns, ORDER)


def _claims(judges: Sequence[OtherJudge]) -> Table:
    rows = [{"judge": one.name, **part.given()} for one in judges for part in one.claims]
    columns = [
        Column("judge", "Judge"),
        Column("changes", "Verdict", _verdict),
        Column("claim", "Claim"),
        Column("first", "By the first", _holds),
        Column("other", "By this one", _holds),
        Column("evidence", "Figures by this one"),
    ]
    return Table("judges_claims", pd.DataFrame(rows), columns, CLAIMS)


def _verdict(row: Row, field: str) -> str:
    if row[field]:
        return "changes"
    return "same" if _holds(row, "first") == _holds(row, "other") else "cannot be told"


def _holds(row: Row, field: str) -> str:
    return {"True": "holds", "False": "fails"}.get(said(row, field), "open")


def _warnings(judges: Sequence[OtherJudge]) -> list[str]:
    found = []
    for one in judges:
        if changed := [part.claim for part in one.claims if part.changes]:
            found.append(
                f"{len(changed)} of the {len(one.claims)} claims change under the judge "
                f"{one.name} (first: {changed[0]})."
            )
        found += [f"The judge {one.name}: {text}" for text in judge_warnings(one.judge)]
    return [one_line(text, 600) for text in found]


def _line(one: OtherJudge) -> str:
    """What the terminal says of a judge."""
    found, changed = one.agreement, sum(part.changes for part in one.claims)
    swapped, pairs = (sum(getattr(p, name) for p in one.order) for name in ("swapped", "pairs"))
    same = math.nan if found.agreement is None else found.agreement
    return (
        f"judge {one.name}: agrees with {one.against} in {share(same)} of "
        f"{count(found.n, 'conversation')}, kappa {_kappa(found.given(), 'kappa')}; {swapped} of "
        f"{count(pairs, 'pair')} of rows swapped; {changed} of {count(len(one.claims), 'claim')} "
        "change"
    )
