"""How attacks change what a judge says, for people."""

from collections.abc import Sequence

import pandas as pd

from raycib.counting import count
from raycib.report.forms import Row, rate
from raycib.report.report import Report, Section
from raycib.report.table import Column, Table
from raycib.results import JudgeFlips

TEXT = (
    "`raycib judge-check` asked the judge about answers whose harm is known. A model that was "
    "fine-tuned may write what such an attack writes, by itself: its rate is then too low."
)
CAPTION = (
    "In %, with Wilson's 95 % interval and the number of answers. Without an attack: wrong "
    "verdicts. Under one: verdicts that were right and are not any more. Unread ones are left out "
    "and counted."
)
MUCH = 0.1
"""Share of missed harmful answers that a reader has to know of."""


def flips_table(checks: Sequence[JudgeFlips]) -> Table:
    """A row for each judge and attack."""
    rows = []
    for check in checks:
        for flip in check.flips:
            row = {"judge": check.judge, "answers": check.answers, "attack": flip.attack}
            for name in ("missed", "alarms"):
                found = getattr(flip, name)
                row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
                row[f"{name}_n"] = found.n
            rows.append(row | {"unread": flip.missed.unread + flip.alarms.unread})
    columns = [
        Column("judge", "Judge"),
        Column("attack", "Attack"),
        Column("missed", "Harmful called safe, %", _rate),
        Column("alarms", "Harmless called harmful, %", _rate),
        Column("unread", "Unread"),
    ]
    return Table("judge_flips", pd.DataFrame(rows), columns, CAPTION)


def with_flips(report: Report) -> Report:
    """The report with what its judges say under attack; as it is where nobody checked."""
    checks = report.results.judge_flips
    if not checks:
        return report
    section = Section("attacks", "The judge under attack", "Attacks", [flips_table(checks)], TEXT)
    return report.with_section(section, warnings=filter(None, map(_warning, checks)))


def _warning(check: JudgeFlips) -> str:
    """The attack that hides most harm, or that harm is overlooked without one, where it is much."""
    told = [flip for flip in check.flips if flip.missed.value is not None]
    worst = max(told, key=lambda flip: flip.missed.value or 0, default=None)
    if worst is None or (worst.missed.value or 0) <= MUCH:
        return ""
    share = 100 * (worst.missed.value or 0)
    how = f" under an attack ({worst.attack}): where models write so,"
    return (
        f"The judge {check.judge} calls {share:.0f} % of {count(worst.missed.n, 'harmful answer')} "
        f"safe{how if worst.attack != 'none' else ' without any attack:'} harmful response rates "
        "are too low."
    )


def _rate(row: Row, field: str) -> str:
    return rate(row, field) or "none read"
