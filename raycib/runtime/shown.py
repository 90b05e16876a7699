"""What a person sees of a sweep: its plan before, its table, files and MLflow afterwards."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raycib.config.plan import Plan, waits
from raycib.console import clickable
from raycib.counting import count
from raycib.results import FILE, Histories, Results, Samples, as_text
from raycib.runtime.planning.estimate import Estimate
from raycib.runtime.planning.text import lines
from raycib.runtime.summary import stored_histories
from raycib.runtime.sweep import Sweep

if TYPE_CHECKING:
    from raycib.report.report import Report


def print_plan(sweep: Sweep, plan: Plan, estimate: Estimate) -> None:
    """What a run would do: groups by level and what they hold, then what that takes."""
    for number, level in enumerate(plan.levels, 1):
        for reason in waits(level) if number > 1 else []:
            print(f"level {number} waits for level {number - 1}: {reason}")
        for group in level:
            steps = max(job.stage.steps for job in group.jobs)
            cells = ", ".join(
                f"{job.stage.method_in_effect.kind} {job.stage.method.strength:g} "
                f"seed {job.stage.seed}"
                for job in group.jobs
            )
            print(
                f"level {number}  {group.name}  {count(len(group.jobs), 'slot')} x "
                f"{count(steps, 'step')}: {cells}"
            )
    print(f"models to question: {len(sweep.unanswered) + plan.to_train}")
    if points := len(sweep.points - sweep.kept):
        print(f"and {points} in the middle of their training, harmful prompts alone")
    for line in lines(estimate):
        print(line)


def show(sweep: Sweep, results: Results, answers: Samples, folder: Path) -> bool:
    """Print the table, then write the exhibits and tell MLflow; whether all files are written.

    The table comes first: nothing that goes wrong later may keep it from a person.
    """
    curves = stored_histories(sweep.store, sweep.stages)
    report = report_of(sweep, results, answers, curves)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print("\n" + report.terminal(width))
    for note in sweep.store.damaged:
        print(f"damaged and set aside: {note}")
    counts = results.counts
    print(
        f"\n{count(counts.stages_trained, 'stage')} trained, {counts.stages_reused} reused; "
        f"{count(counts.reference_forwards, 'reference forward')} for "
        f"{count(counts.distinct_examples, 'distinct example')}; "
        f"{count(counts.engine_starts, 'engine start')}; "
        f"{count(counts.judge_calls, 'judge call')}; {results.timings_s['total']:.0f} s",
        flush=True,
    )
    try:
        _write(report, answers, folder)
    except OSError as error:
        print(
            f"error: {folder}: {error.strerror or error}; tables, figures and "
            "report are not written, the results are stored: mend that and run the same command "
            "again",
            file=sys.stderr,
        )
        return False
    page = folder / "report.html"
    print(clickable(f"report  {page}", page.absolute().as_uri()), flush=True)
    _track(sweep, results, curves, answers, folder)
    return True


def report_of(sweep: Sweep, results: Results, answers: Samples, curves: Histories) -> "Report":
    """The study's report, with what any sweep's results may hold besides."""
    from raycib.report.cards.section import with_cards
    from raycib.report.corrected import with_corrected
    from raycib.report.judge_flips import with_flips
    from raycib.report.judges import with_judges
    from raycib.report.over_steps.section import with_steps
    from raycib.report.poisoned.section import with_poisoned

    report = with_poisoned(sweep.setup.study.report(results, answers, curves), answers)
    report = with_cards(with_corrected(with_steps(report)))
    if sweep.judge.spec.kind == "rule":
        from raycib.report.not_refused import in_words
        from raycib.report.reworded import reworded

        report = reworded(report, in_words)
    return with_flips(with_judges(report))


def _write(report: "Report", answers: Samples, folder: Path) -> None:
    from raycib.report.page import write_report
    from raycib.report.writing import write_text

    write_text(folder / FILE, as_text(report.results))
    write_report(report, answers, folder)


def _track(
    sweep: Sweep, results: Results, curves: Histories, answers: Samples, folder: Path
) -> None:
    from raycib.tracking import default_uri, track
    from raycib.tracking.session import sqlite_uri, without_password

    link = track(results, curves, folder, samples=answers, times=sweep.times)
    uri, file = default_uri(folder.parent), sqlite_uri(folder.parent.resolve() / "mlflow.db")
    if link and uri == file:  # which has no pages
        link = shlex.join(["raycib", "ui", "--out", str(folder.parent)])
    print(f"mlflow  {without_password(uri)}  {link or '(not reached)'}")
