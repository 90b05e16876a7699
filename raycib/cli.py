"""`raycib`: the embedded world, results that exist, and what there is to choose from."""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from raycib.console import make_app, run
from raycib.errors import UserError

app = make_app("Compare defences against safety loss in LLM fine-tuning. Sweeps: sweeps/*.py.")
world_app = make_app("The embedded world: a small language and its tiny models.")
app.add_typer(world_app, name="world")


class _Menu(TyperGroup):
    """`raycib methods kl` is short for `raycib methods show kl`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, "-h", "--help"}
        return super().parse_args(ctx, args if args[:1] and args[0] in known else ["show", *args])


data_app = make_app("Rows, as they are read and as models see them.")
app.add_typer(data_app, name="data")
methods_app = make_app("The methods: all, or one by its KIND; checks of yours.", cls=_Menu)
app.add_typer(methods_app, name="methods")
OUT = Annotated[str, typer.Option(help="Store of your sweeps: a folder, or s3://...")]
KEY = Annotated[str, typer.Argument(help="A stage's, or its first digits; see `raycib ls SWEEP`.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"raycib {version('raycib')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Compare defences against safety loss in LLM fine-tuning. Sweeps: sweeps/*.py."""


@world_app.command()
def build(
    out: Annotated[Path, typer.Argument(help="Folder for the three models.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the pretraining.")] = 0,
) -> None:
    """Train the world's models from nothing. Some ten minutes on one core."""
    from raycib.world import recipe

    recipe.build(out, seed)


@world_app.command()
def check(
    weights: Annotated[
        Path | None, typer.Argument(help="Folder of `world build`; default: what is shipped.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the properties that make the world honest."""
    from raycib.world.check import check as measure

    found = measure(weights)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        width = max(map(len, found))
        for name, value in found.items():
            print(f"{name:{width}}  {value:g}")


@app.command()
def track(
    out: Annotated[Path, typer.Argument(help="Results folder of your sweeps.")] = Path("runs"),
    uri: Annotated[
        str | None, typer.Option(help="MLflow; default: MLFLOW_TRACKING_URI, else OUT/mlflow.db.")
    ] = None,
) -> int:
    """Show every finished sweep in MLflow, anew from the store."""
    from raycib.commands.tracking import track_all

    return 1 if track_all(out, uri) else 0


@methods_app.command(hidden=True)
def show(
    kind: Annotated[
        str | None, typer.Argument(help="This one alone: a kind, or my_methods.py:MyMethod.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the fine-tuning methods; of one, what it is, costs and needs, and its settings."""
    from raycib.commands.methods import show as show_methods

    show_methods(kind, as_json)


@methods_app.command("check")
def check_method(
    place: Annotated[str, typer.Argument(help="A kind, my_methods.py, or my_methods.py:MyMethod.")],
) -> int:
    """Check a method's six invariances on the world's model. Half a minute; exit code 1 where one
    fails."""
    os.environ["TQDM_DISABLE"] = "1"  # its two workers inherit it; read when tqdm is imported
    from raycib.commands.methods import check as check_one

    return 1 if check_one(place) else 0


@data_app.command(
    "inspect", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def inspect_rows(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="A preset's task, a file, or hub:DATASET:SPLIT.")],
    rows: Annotated[int, typer.Option(min=0, help="Rows to show of each part.")] = 2,
) -> None:
    """Show rows as a model sees them. What is trained in colour; lengths; what is left out and why.
    Takes a sweep's --preset, --model, --chat, --max-length, --max-tokens, --too-long, --scorer."""
    from rich.console import Console

    from raycib.commands.inspect import inspect
    from raycib.runtime.command import parsed

    inspect(task, rows, parsed(context.args), Console(highlight=False))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def plan(
    context: typer.Context,
    sweep: Annotated[str, typer.Argument(help="A sweep's file, or its name in sweeps/.")],
) -> None:
    """Say what a sweep will take; nothing is trained. With any of its options: stages, tokens,
    memory, GPU hours, dollars, disk. The same as the sweep's own --dry-run."""
    file = Path(sweep) if sweep.endswith(".py") else Path("sweeps") / f"{sweep}.py"
    if not file.is_file():
        there = sorted(one.stem for one in Path("sweeps").glob("*.py"))
        known = f"; sweeps/ has {', '.join(there)}" if there else ""
        raise UserError(f"no sweep at {str(file)!r}{known}: give a file like sweeps/lambda_grid.py")
    sys.argv = [str(file), "--dry-run", *context.args]
    sys.path.insert(0, str(file.parent.absolute()))  # as `python FILE` would
    runpy.run_path(str(file), run_name="__main__")


@app.command()
def fetch(
    preset: Annotated[str, typer.Argument(help="Its name, such as llama31-8b.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to keep it in, in place of HF_HOME.")
    ] = None,
    evals: Annotated[
        str | None, typer.Option(help="Benchmarks of lm-eval as well, as in a sweep.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say sizes and licences; fetch nothing.")
    ] = False,
) -> None:
    """Download all that a preset needs. It then runs without a network; where there is none
    (HF_HUB_OFFLINE=1), check it."""
    from raycib.commands import fetch as fetching

    if to is not None:
        fetching.into(to)
    if manifest := fetching.fetch(preset, print, dry_run, evals):
        print(f"all there, with hashes in {manifest}; run with")
        print(f"export HF_HOME={manifest.parents[1]} HF_HUB_OFFLINE=1")


@app.command()
def judge_check(
    judge: Annotated[
        str | None, typer.Option(help="As a sweep's: a guard, refusal-rule, MODEL@URL; several.")
    ] = None,
    judge_url: Annotated[str | None, typer.Option(help="As a sweep's.")] = None,
    judge_profile: Annotated[str | None, typer.Option(help="As a sweep's.")] = None,
    judge_key_env: Annotated[str | None, typer.Option(help="As a sweep's.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Answers that people labelled: prompt, answer, harmful; as a sweep's."),
    ] = None,
    out: Annotated[str, typer.Option(help="Store of your sweeps: a folder, or s3://...")] = "runs",
) -> None:
    """Say how often attacks change a judge's verdicts. Refusals, verdicts and words are put around
    an answer, or other letters into it. Sweeps in the same store show it."""
    from raycib.commands.judge_check import judge_check as check_judge
    from raycib.runtime.options import Options

    check_judge(
        Options(out=out, judge=judge, judge_url=judge_url, judge_profile=judge_profile,
                judge_key_env=judge_key_env, labels=labels)
    )  # fmt: skip


@app.command()
def export(
    key: KEY,
    out: OUT = "runs",
    to: Annotated[
        Path | None, typer.Option(help="An empty folder; default: exports/METHOD-KEY.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="What the hub calls its base, where that was a folder here."),
    ] = None,
    with_answers: Annotated[
        bool, typer.Option("--with-answers", help="Harmful prompts and answers as texts.")
    ] = False,
) -> None:
    """Make a folder for a hub of a trained adapter or model. It has weights, and a card with data,
    settings and scores. Nothing is uploaded."""
    from raycib.commands.export import export as exported

    print(exported(key, out, to, base_model, with_answers))


@app.command("ls")
def list_results(
    sweep: Annotated[
        str | None, typer.Argument(help="The cells of this one; default: all sweeps.")
    ] = None,
    out: OUT = "runs",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List sweeps, or the cells of one. With harmful response rates; with keys and scores."""
    from raycib.commands.listing import results_of, sweeps, table_of_cells, table_of_sweeps
    from raycib.commands.terminal import console
    from raycib.report.frame import to_frame

    if sweep:
        results = results_of(out, sweep)
        if as_json:
            # By itself pandas keeps ten decimals, and of a strength of 3e-11 nothing.
            print(to_frame(results).to_json(orient="records", indent=1, double_precision=15))
        else:
            console().print(table_of_cells(results))
        return
    found = sweeps(out)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        console().print(table_of_sweeps(found))


@app.command("show")
def show_stage(
    key: KEY,
    out: OUT = "runs",
    answers: Annotated[
        int, typer.Option(min=0, help="Harmful prompts and answers to print as texts.")
    ] = 0,
) -> None:
    """Show a cell. Settings, rows, scores with intervals, loss curve, and what it answered."""
    from raycib.commands.showing import show as shown
    from raycib.commands.terminal import console

    console().print(shown(key, out, answers))


@app.command()
def diff(first: KEY, second: KEY, out: OUT = "runs") -> None:
    """Say what two cells differ in. Settings, scores, and which answers changed sides."""
    from raycib.commands.difference import diff as difference
    from raycib.commands.terminal import console

    console().print(difference(first, second, out))


@app.command()
def ui(
    out: Annotated[Path, typer.Option(help="Results folder of your sweeps.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine alone.")] = 5000,
) -> None:
    """Open MLflow on the runs of all sweeps; Ctrl-C ends it."""
    from raycib.commands.browse import serve

    serve(out, port)


@app.command()
def doctor(
    out: Annotated[str, typer.Option(help="Where results will go: a folder, or s3://...")] = "runs",
    quick: Annotated[bool, typer.Option("--quick", help="Do not try to import vLLM.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Say what will work on this machine. Exit code 1, and what to do, where something will not."""
    from raycib.doctor import examine

    findings = examine(out, quick)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for name, level, found, todo in findings:
            print(f"{level:8} {name:12} {found}" + (f"\n{'':22}-> {todo}" if todo else ""))
    return 1 if any(finding.level == "problem" for finding in findings) else 0


def main() -> None:
    """Entry point of the `raycib` program."""
    run(app)
