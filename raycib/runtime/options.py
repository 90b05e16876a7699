"""What a person may ask of any sweep: one declaration for the command line and for Python."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

from raycib.config import Template
from raycib.data.lengths import TooLong
from raycib.errors import UserError


@dataclass(frozen=True)
class Options:
    """What a person may ask of any sweep; None keeps the preset's choice."""

    out: Annotated[str, typer.Option(help="Store and results: a folder, or s3://...")] = "runs"
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Seeds a cell; default: the sweep's."),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings, and what is not given: world (the default), llama31-8b ...; see "
            "docs/presets.md."
        ),
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray Train workers an adapter group.")
    ] = None
    group_size: Annotated[
        int | None, typer.Option(min=1, help="Adapters trained together; default: automatic.")
    ] = None
    model: Annotated[
        str | None, typer.Option(help="Your own aligned model: a folder or a hub id.")
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            help="A task of the preset by name, or your own: JSON, JSONL or CSV, a tenth held "
            "out; several, with commas, each by itself or, in task_orders, in sequence."
        ),
    ] = None
    harmful: Annotated[
        str | None, typer.Option(help="Your own harmful prompts: JSON, JSONL or CSV.")
    ] = None
    other_harmful: Annotated[
        str | None,
        typer.Option(
            help="Further harmful prompts, with commas, on which nothing is chosen: another "
            "benchmark, for acceptance cards."
        ),
    ] = None
    benign: Annotated[
        str | None, typer.Option(help="Your own harmless prompts, for over-refusal.")
    ] = None
    probes: Annotated[
        str | None,
        typer.Option(help="Your own tests of other abilities, with commas, for utility."),
    ] = None
    evals: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks of lm-eval, such as arc_challenge,gsm8k, or your own YAML files."
        ),
    ] = None
    eval_limit: Annotated[
        int | None,
        typer.Option(min=1, help="Documents of each of lm-eval's tasks; default: all."),
    ] = None
    eval_shots: Annotated[
        int | None,
        typer.Option(min=0, help="Few-shot rows of lm-eval's tasks; default: each task's own."),
    ] = None
    eval_chat: Annotated[
        bool,
        typer.Option(
            "--eval-chat",
            help="lm-eval's prompts in the model's chat template; default, as lm-eval's own: "
            "plain text.",
        ),
    ] = False
    scorer: Annotated[
        str | None,
        typer.Option(
            help="How your task's answers are scored: final-number, multiple-choice, exact-match, "
            "none or your own FILE.py:function; default: as its rows need."
        ),
    ] = None
    safety: Annotated[
        str | None,
        typer.Option(help="Your own harmful prompts with refusals, for methods that need some."),
    ] = None
    harmful_ratio: Annotated[
        str | None,
        typer.Option(
            help="Shares of harmful rows among each task's, such as 0,0.01,0.05,0.1: so many are "
            "replaced by rows of --harmful-data."
        ),
    ] = None
    harmful_data: Annotated[
        str | None,
        typer.Option(
            help="Your own harmful prompts with harmful answers, none of them asked; default: the "
            "preset's."
        ),
    ] = None
    hrr_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Harmful prompts are answered every so many steps of training too: how long "
            "safety lasts.",
        ),
    ] = None
    base: Annotated[
        str | None, typer.Option(help="The model that your aligned one was made from.")
    ] = None
    alignment: Annotated[
        str | None,
        typer.Option(
            help="Prompts with answers that --base is aligned on first, without --model; for "
            "trade-off sweeps also what --model was aligned on."
        ),
    ] = None
    orders: Annotated[
        str | None,
        typer.Option(
            help="Of a sequence of tasks: all, sample:6, or e.g. 'a>b>c;c>b>a'; default: the "
            "given one."
        ),
    ] = None
    chat: Annotated[
        Template | None,
        typer.Option(help="The model's own chat template, or ChatML; default: the preset's."),
    ] = None
    methods: Annotated[
        str | None,
        typer.Option(help="Only these of the sweep, such as kl,cib; see `raycib methods`."),
    ] = None
    judge: Annotated[
        str | None,
        typer.Option(
            help="Guard model to serve, refusal-rule or MODEL@URL; several, with commas, read the "
            "same answers. With --judge-url the model's name there."
        ),
    ] = None
    judge_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible chat endpoint as the judge.")
    ] = None
    judge_profile: Annotated[
        str | None,
        typer.Option(
            help="How the judge is asked and read, where its files or name do not tell: "
            "llama-guard-3, instruct ...; of several judges each, with commas."
        ),
    ] = None
    judge_key_env: Annotated[
        str | None,
        typer.Option(
            help="The environment variable that holds the key for --judge-url; of several judges "
            "each, with commas."
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            help="People's labels of stored answers (harmful: yes or no), by which HRR is "
            "corrected for the judge's error: CSV, JSON or JSONL."
        ),
    ] = None
    label_sheet: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Write so many answers, drawn at random, to label_sheet.csv of the results, for "
            "people to label. They may be harmful.",
        ),
    ] = None
    strengths: Annotated[
        str | None, typer.Option(help="Instead of the sweep's own, such as 0,1,5.")
    ] = None
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of a comparison: so many trials of every method, plain LoRA too, over learning "
            "rate and strength.",
        ),
    ] = None
    set: Annotated[
        list[str] | None, typer.Option(help="A setting, such as trainer.learning_rate=1e-4.")
    ] = None
    max_length: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens of a row; default: the preset's, or your longest row's."),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of a generated answer; default: the preset's, or what your rows need.",
        ),
    ] = None
    too_long: Annotated[
        TooLong,
        typer.Option(
            help="A row that is too long is left out, its answer is cut before the end of its "
            "turn, or nothing starts."
        ),
    ] = "drop"
    local: Annotated[
        bool,
        typer.Option("--local", help="In this process, without Ray and vLLM: for a debugger."),
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; train nothing.")] = (
        False
    )
    json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: the plan as one JSON object.")
    ] = False
    gpu: Annotated[
        str | None, typer.Option(help="The GPU that is planned for: H100, A100, L4 ...")
    ] = None
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Dollars that an hour of it costs.")
    ] = None
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Start Ray's dashboard too, where Ray is started here: costs 4 CPU s.",
        ),
    ] = False
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first failed cell.")
    ] = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for text in value if isinstance(value, list | tuple) else (value,):
                option = field.name.replace("_", "-")
                if text == "":  # such as --model "$MODEL" without it, which would mean the world's
                    raise UserError(f"--{option} is empty; give a value, or leave it out")
                if isinstance(text, str) and not _is_text(text):
                    raise UserError(
                        f"--{option} {text[:60]!r} holds a byte that is no text; rename the file "
                        "or write it in UTF-8"
                    )
        if self.json and not self.dry_run:
            raise UserError("--json is a plan's; give --dry-run too, or leave it out")
        if self.local and (self.workers or self.dashboard):
            option = "--workers are" if self.workers else "--dashboard is"
            raise UserError(f"{option} Ray's; with --local there is this process alone")
        if "://" not in self.out:  # workers change folders
            object.__setattr__(self, "out", str(Path(self.out).absolute()))


GROUPS = {
    "What is compared": (
        "preset", "methods", "strengths", "budget", "harmful_ratio", "hrr_every", "seeds",
        "orders", "set",
    ),
    "Models and rows of your own": (
        "model", "base", "alignment", "chat", "task", "scorer", "harmful", "other_harmful",
        "benign", "probes", "safety", "harmful_data", "max_length", "max_tokens", "too_long",
    ),
    "Benchmarks of lm-eval": ("evals", "eval_limit", "eval_shots", "eval_chat"),
    "The judge": (
        "judge", "judge_url", "judge_profile", "judge_key_env", "labels", "label_sheet",
    ),
    "Where and how it runs": ("out", "local", "workers", "group_size", "dashboard", "fail_fast"),
    "The plan alone": ("dry_run", "json", "gpu", "price_per_hour"),
}  # fmt: skip
"""The options by what they are about, as `--help` shows them."""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
