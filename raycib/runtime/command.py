"""The one contract of every sweep script: its options, what it prints, how it exits.

Exit codes: 0 all cells have scores, 1 some failed or their files could not be written, 2 the input
was wrong, 128 and the number of a signal that stopped it.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand

from raycib.config import RunSpec
from raycib.console import made, make_app, run, tell_lost
from raycib.counting import count
from raycib.errors import Lost, NotHere
from raycib.results import Results, folder_of
from raycib.runtime import benchmarks
from raycib.runtime.build import build_config
from raycib.runtime.capacity import groups_here
from raycib.runtime.execution import engine_of
from raycib.runtime.failures import failed_before
from raycib.runtime.files import files_read, lines
from raycib.runtime.labelled import check_labels, with_correction, write_label_sheet
from raycib.runtime.options import GROUPS, Options, as_options
from raycib.runtime.planning.afterwards import beside
from raycib.runtime.planning.estimate import estimate
from raycib.runtime.planning.fit import fitted
from raycib.runtime.planning.machine import machine_of
from raycib.runtime.planning.reader import Assumed
from raycib.runtime.settings import cautions, in_lines, settings_of, unmeasured
from raycib.runtime.shown import print_plan, show
from raycib.runtime.study import Study
from raycib.runtime.summary import all_samples, reasons, summarise, with_cards
from raycib.runtime.sweep import Sweep
from raycib.runtime.sweep_config import SweepConfig
from raycib.runtime.swept import equal_cells, refuse_missing, refuse_swept


@dataclass(frozen=True)
class Question:
    """A sweep script: what it asks, and the grid that answers it."""

    name: str
    question: str
    runs: Callable[[SweepConfig], Sequence[RunSpec]]
    study: Study
    """What is measured, told and drawn."""
    seeds: int | None = None
    """Seeds a cell unless a person says how many; None: the preset's."""


class _ByGroup(TyperCommand):
    """A sweep's command, whose help has its many options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Those of `GROUPS`, then typer's own."""
        records = {one.name: one.get_help_record(ctx) for one in self.get_params(ctx)}
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl([record for record in records.values() if record])


def command_line(help_text: str, then: Callable[[Options], Any]) -> typer.Typer:
    """A command with all options of a sweep, which are handed on."""

    def main(**given: Any) -> Any:
        return then(Options(**given))

    app = make_app(help_text)
    app.command(help=help_text, cls=_ByGroup)(as_options(main))
    return app


def parsed(arguments: Sequence[str]) -> Options:
    """Options as a sweep's command line reads them. Raises what typer does."""
    return command_line("", lambda options: options)(list(arguments), standalone_mode=False)


def sweep_command(question: Question) -> None:
    """Run a sweep script as a program."""
    run(command_line(question.question, partial(run_question, question)))


def run_question(question: Question, options: Options) -> int:
    """Do a sweep; the exit code."""
    from raycib.evals.judge_server import JudgeUnavailable

    try:
        results, shown = answer(question, options)
    except (JudgeUnavailable, Lost) as error:
        return tell_lost(error)
    except BrokenPipeError as error:
        if not options.dry_run:  # a plan is printed for `head`, hours of work are not
            tell_lost(f"nobody reads what is printed: {error.strerror}")
        raise
    return 1 if (results and results.counts.cells_failed) or not shown else 0


def answer(question: Question, options: Options) -> tuple[Results | None, bool]:
    """Plan, do, score and show a sweep; its results, None of a plan alone, and whether all files
    are written. Raises `JudgeUnavailable`."""
    began = time.monotonic()
    if sys.stdout.isatty() and not options.json:  # within a second something is said
        print(f"{question.name}: reading rows and models", flush=True)
    setup = _setup(replace(options, seeds=options.seeds or question.seeds), question.study)
    runs = question.runs(setup)
    refuse_missing(setup, runs)
    refuse_swept(question.runs, setup, runs)
    setup.reader.check_places(runs, engine_of(setup.options, setup.model))
    sweep = Sweep(setup, runs)
    machine = machine_of(options, setup.execution)
    execution, chosen = fitted(sweep, machine)
    sweep.setup = setup = replace(setup, execution=execution)
    plan = sweep.plan(groups_here(execution))
    told = estimate(sweep, plan, machine)
    if options.dry_run and options.json:
        print(told.model_dump_json(indent=1))
        return None, True
    folder = folder_of(options.out) / question.name
    if not options.dry_run:
        made(folder, "--out")
    if to_do := not (options.dry_run or sweep.finished):
        sweep.store.check_writable(sweep.kinds)
    check_labels(sweep, folder)
    for line in in_lines(settings_of(setup, runs), setup.origin):
        print(line)
    for note in [*setup.notes, *unmeasured(setup), *cautions(runs), *chosen]:
        print(f"note: {note}")
    print(
        f"{question.name}: {count(plan.stages, 'stage')}, {plan.reused} reused, {plan.to_train} to "
        f"train, {len(failed_before(sweep))} failed before; results in {folder}",
        flush=True,
    )
    for line in [
        *lines(files_read(runs)), *setup.sets.lines(), *benchmarks.lines(sweep.benchmarks)
    ]:  # fmt: skip
        print(f"  {line}")
    if same := equal_cells(runs):
        print(same)
    for line in question.study.notes(setup):
        print(line)
    if options.dry_run:
        print_plan(sweep, plan, told)
        return None, True
    setup.sets.counts.keep(sweep.store)
    failures: dict[str, str] = {}
    counts: dict[str, int] = {}
    timings: dict[str, float] = {}
    asked = (question.name, question.question)
    if to_do:
        from raycib.runtime.live import Live
        from raycib.runtime.run import do

        def so_far(one: Sweep, failures: Mapping[str, str]) -> Results:
            spent = {"total": time.monotonic() - began}
            return summarise(one, asked, plan, dict(failures), {}, spent)

        work = do(sweep, folder, partial(Live, folder=folder, summarised=so_far))
        failures = {key: reason for key, (reason, _) in work.failures.items()}
        counts, timings = work.counts, work.timings
    timings["total"] = time.monotonic() - began

    def summarised(one: Sweep) -> Results:
        found = summarise(one, asked, plan, failures, counts, timings)
        return found.but(planned=beside(told, one, plan, counts, timings))

    results = summarised(sweep)
    if len(setup.judges) > 1:
        from raycib.runtime.second_judges import with_other_judges

        results = with_other_judges(sweep, results, summarised)
    samples = all_samples(sweep)
    results = with_cards(sweep, with_correction(sweep, results, samples), samples)
    shown = show(sweep, results, samples, folder)
    write_label_sheet(sweep, results, samples, folder)
    if failures:
        print("failed: " + "; ".join(reasons(failures)), file=sys.stderr)
    return results, shown


def _setup(options: Options, study: Study) -> SweepConfig:
    """The setup; of a plan also where files are out of reach."""
    try:
        return build_config(options, study)
    except NotHere:
        if not options.dry_run:
            raise
        return build_config(options, study, Assumed())
