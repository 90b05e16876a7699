"""The one contract of every sweep script: its options, what it prints, how it exits.

Exit codes: 0 all cells have scores, 1 some failed or their files could not be written, 2 the input
was wrong, 130 interrupted.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from raycib.adapter_places import check_places
from raycib.console import make_app, run
from raycib.data.lengths import TooLong
from raycib.errors import UserError
from raycib.orchestration.files import files_read, lines
from raycib.orchestration.options import Options
from raycib.orchestration.resolve import resolve
from raycib.orchestration.settings import cautions, in_lines, settings_of
from raycib.orchestration.setup import Setup
from raycib.orchestration.shown import print_plan, show
from raycib.orchestration.summary import reasons, summarise
from raycib.orchestration.sweep import Sweep
from raycib.orchestration.swept import equal_cells, refuse_swept
from raycib.orchestration.theory import surveyed
from raycib.spec import RunSpec, Scorer, Template


@dataclass(frozen=True)
class Question:
    """A sweep script: what it asks, and the grid that answers it."""

    name: str
    question: str
    runs: Callable[[Setup], Sequence[RunSpec]]
    kind: Literal["dose", "comparison", "ablation", "gaps", "orders"] = "dose"
    """One method over its strengths, several methods, variants of one, the Trade-offs paper's
    gaps, or one task after another: what is measured and drawn."""
    seeds: int | None = None
    """Seeds a cell unless a person says how many; None: the preset's."""


def sweep_command(question: Question) -> None:
    """Run a sweep script as a program."""

    def main(
        out: Annotated[str, typer.Option(help="Store and results: a folder, or s3://...")] = "runs",
        seeds: Annotated[
            int | None,
            typer.Option(min=1, max=1000, help="Seeds a cell; default: the sweep's."),
        ] = None,
        preset: Annotated[
            str | None,
            typer.Option(help="world (the default) or llama31-8b; settings and what is not given."),
        ] = None,
        workers: Annotated[
            int | None, typer.Option(min=1, help="Ray Train workers a pack.")
        ] = None,
        pack: Annotated[
            int | None, typer.Option(min=1, help="Adapters trained together; default: automatic.")
        ] = None,
        model: Annotated[
            str | None, typer.Option(help="Your own aligned model: a folder or a hub id.")
        ] = None,
        task: Annotated[
            str | None,
            typer.Option(
                help="Your own task: JSON, JSONL or CSV, a tenth held out; for task_orders "
                "several, with commas."
            ),
        ] = None,
        harmful: Annotated[
            str | None, typer.Option(help="Your own harmful prompts: JSON, JSONL or CSV.")
        ] = None,
        benign: Annotated[
            str | None, typer.Option(help="Your own harmless prompts, for over-refusal.")
        ] = None,
        probes: Annotated[
            str | None,
            typer.Option(help="Your own tests of other abilities, with commas, for utility."),
        ] = None,
        scorer: Annotated[
            Scorer | None,
            typer.Option(help="How your task's answers are scored; default: as its rows need."),
        ] = None,
        safety: Annotated[
            str | None,
            typer.Option(
                help="Your own harmful prompts with refusals, for methods that need some."
            ),
        ] = None,
        base: Annotated[
            str | None, typer.Option(help="The model that your aligned one was made from.")
        ] = None,
        alignment: Annotated[
            str | None,
            typer.Option(
                help="The data it was aligned on, for trade-off sweeps; without --model, --base is "
                "aligned on them first."
            ),
        ] = None,
        orders: Annotated[
            str | None,
            typer.Option(
                help="Of a sequence of tasks: all, sample:6, or e.g. 'a>b>c;c>b>a'; default: the "
                "given one."
            ),
        ] = None,
        chat: Annotated[
            Template, typer.Option(help="The model's own chat template, or the unified ChatML.")
        ] = "own",
        methods: Annotated[
            str | None,
            typer.Option(help="Only these of the sweep, such as kl,cib; see `raycib methods`."),
        ] = None,
        judge: Annotated[
            str | None,
            typer.Option(help="Guard model to serve; with --judge-url the model's name there."),
        ] = None,
        judge_url: Annotated[
            str | None, typer.Option(help="An OpenAI-compatible chat endpoint as the judge.")
        ] = None,
        judge_profile: Annotated[
            str | None,
            typer.Option(
                help="How the judge is asked and read, where its files or name do not tell: "
                "llama-guard-3, instruct ..."
            ),
        ] = None,
        judge_key_env: Annotated[
            str | None,
            typer.Option(help="The environment variable that holds the key for --judge-url."),
        ] = None,
        strengths: Annotated[
            str | None, typer.Option(help="Instead of the sweep's own, such as 0,1,5.")
        ] = None,
        change: Annotated[
            list[str] | None,
            typer.Option("--set", help="A setting, such as trainer.learning_rate=1e-4."),
        ] = None,
        max_length: Annotated[
            int | None,
            typer.Option(
                min=2, help="Tokens of a row; default: the preset's, or your longest row's."
            ),
        ] = None,
        max_tokens: Annotated[
            int | None,
            typer.Option(
                min=1,
                help="Tokens of a generated answer; default: the preset's, or what your rows need.",
            ),
        ] = None,
        too_long: Annotated[
            TooLong,
            typer.Option(
                help="A row that is too long is left out, its answer is cut before the end of its "
                "turn, or nothing starts."
            ),
        ] = "drop",
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print the plan; train nothing.")
        ] = False,
        fail_fast: Annotated[
            bool, typer.Option("--fail-fast", help="Stop at the first failed cell.")
        ] = False,
    ) -> int:
        options = Options(
            out=out if "://" in out else str(Path(out).absolute()),
            seeds=seeds,
            preset=preset,
            workers=workers,
            pack=pack,
            model=model,
            task=task,
            harmful=harmful,
            benign=benign,
            probes=probes,
            scorer=scorer,
            safety=safety,
            base=base,
            alignment=alignment,
            orders=orders,
            chat=chat,
            methods=methods,
            judge=judge,
            judge_url=judge_url,
            judge_profile=judge_profile,
            judge_key_env=judge_key_env,
            strengths=strengths,
            changes=tuple(change or ()),
            max_length=max_length,
            max_tokens=max_tokens,
            too_long=too_long,
            dry_run=dry_run,
            fail_fast=fail_fast,
        )
        return run_question(question, options)

    app = make_app(question.question)
    app.command(help=question.question)(main)
    run(app)


def run_question(question: Question, options: Options) -> int:
    """Plan, do, score and show a sweep; the exit code."""
    began = time.monotonic()
    setup = resolve(replace(options, seeds=options.seeds or question.seeds), question.kind)
    runs = question.runs(setup)
    if not runs:
        raise UserError(
            f"--methods {options.methods}: none of the methods asked for is in this sweep"
        )
    refuse_swept(question.runs, setup, runs)
    check_places(runs)
    sweep = Sweep(setup, runs)
    folder = _results_folder(options.out, question.name)
    plan = sweep.plan(setup.execution.packs_at_once or 1)
    failed_before = len(sweep.failed_before)
    for line in in_lines(settings_of(setup, runs), setup.origin):
        print(line)
    for note in [*setup.notes, *cautions(runs)]:
        print(f"note: {note}")
    print(
        f"{question.name}: {plan.stages} stages, {plan.reused} reused, {plan.to_train} to train, "
        f"{failed_before} failed before; results in {folder}",
        flush=True,
    )
    setup.sets.keep(sweep.store)
    for line in [*lines(files_read(runs)), *setup.sets.lines()]:
        print(f"  {line}")
    if same := equal_cells(runs):
        print(same)
    if question.kind == "comparison" and setup.left_out:
        print("left out: " + ", ".join(setup.left_out))
    if options.dry_run:
        print_plan(sweep)
        return 0
    failures: dict[str, str] = {}
    counts: dict[str, int] = {}
    timings: dict[str, float] = {}
    if not (sweep.finished and surveyed(sweep)):
        from raycib.orchestration.run import JudgeUnavailable, do

        try:
            work = do(sweep, folder)
        except JudgeUnavailable as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            print("all answers are kept: run the same command again", file=sys.stderr)
            return 1
        failures = {key: reason for key, (reason, _) in work.failures.items()}
        counts, timings = work.counts, work.timings
    timings["total"] = time.monotonic() - began
    asked = (question.name, question.question, question.kind)
    summary = summarise(sweep, asked, plan, failures, counts, timings)
    shown = show(sweep, summary, folder)
    if failures:
        print("failed: " + "; ".join(reasons(failures)), file=sys.stderr)
    return 1 if any(cell["failed"] for cell in summary["cells"]) or not shown else 0


def _results_folder(out: str, name: str) -> Path:
    """Where tables and figures go: beside the store, or here where the store is a bucket."""
    folder = (Path("runs") if "://" in out else Path(out)) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write results to {folder}: {error.strerror}; choose --out"
        ) from error
    return folder
