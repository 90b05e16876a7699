"""What a person may ask of any sweep: one declaration for the command line and for Python."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from raycib.config import Template
from raycib.data.lengths import TooLong
from raycib.errors import UserError


def option(help: str, default: Any = None, **limits: Any) -> Any:
    """A field that the command line has too; `help` and `limits` are `typer.Option`'s."""
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class Options:
    """What a person may ask of any sweep; None keeps the preset's choice."""

    out: str = option("Store and results: a folder, or s3://...", "runs")
    seeds: int | None = option("Seeds a cell; default: the sweep's.", min=1, max=1000)
    preset: str | None = option(
        "Settings, and what is not given: world (the default), llama31-8b ...; see docs/presets.md."
    )
    workers: int | None = option("Ray Train workers an adapter group.", min=1)
    group_size: int | None = option("Adapters trained together; default: automatic.", min=1)
    model: str | None = option("Your own aligned model: a folder or a hub id.")
    task: str | None = option(
        "A task of the preset by name, or your own: JSON, JSONL or CSV, a tenth held out; "
        "several, with commas, each by itself or, in task_orders, in sequence."
    )
    harmful: str | None = option("Your own harmful prompts: JSON, JSONL or CSV.")
    other_harmful: str | None = option(
        "Further harmful prompts, with commas, on which nothing is chosen: another benchmark, for "
        "acceptance cards."
    )
    benign: str | None = option("Your own harmless prompts, for over-refusal.")
    probes: str | None = option("Your own tests of other abilities, with commas, for utility.")
    evals: str | None = option(
        "Benchmarks of lm-eval, such as arc_challenge,gsm8k, or your own YAML files."
    )
    eval_limit: int | None = option("Documents of each of lm-eval's tasks; default: all.", min=1)
    eval_shots: int | None = option(
        "Few-shot rows of lm-eval's tasks; default: each task's own.", min=0
    )
    eval_chat: bool = option(
        "lm-eval's prompts in the model's chat template; default, as lm-eval's own: plain text.",
        False,
    )
    scorer: str | None = option(
        "How your task's answers are scored: final-number, multiple-choice, exact-match, none or "
        "your own FILE.py:function; default: as its rows need."
    )
    safety: str | None = option(
        "Your own harmful prompts with refusals, for methods that need some."
    )
    harmful_ratio: str | None = option(
        "Shares of harmful rows among each task's, such as 0,0.01,0.05,0.1: so many are replaced "
        "by rows of --harmful-data."
    )
    harmful_data: str | None = option(
        "Your own harmful prompts with harmful answers, none of them asked; default: the preset's."
    )
    hrr_every: int | None = option(
        "Harmful prompts are answered every so many steps of training too: how long safety lasts.",
        min=1,
    )
    base: str | None = option("The model that your aligned one was made from.")
    alignment: str | None = option(
        "Prompts with answers that --base is aligned on first, without --model; for trade-off "
        "sweeps also what --model was aligned on."
    )
    orders: str | None = option(
        "Of a sequence of tasks: all, sample:6, or e.g. 'a>b>c;c>b>a'; default: the given one."
    )
    chat: Template | None = option(
        "The model's own chat template, or ChatML; default: the preset's."
    )
    methods: str | None = option("Only these of the sweep, such as kl,cib; see `raycib methods`.")
    judge: str | None = option(
        "Guard model to serve, refusal-rule or MODEL@URL; several, with commas, read the same "
        "answers. With --judge-url the model's name there."
    )
    judge_url: str | None = option("An OpenAI-compatible chat endpoint as the judge.")
    judge_profile: str | None = option(
        "How the judge is asked and read, where its files or name do not tell: llama-guard-3, "
        "instruct ...; of several judges each, with commas."
    )
    judge_key_env: str | None = option(
        "The environment variable that holds the key for --judge-url; of several judges each, "
        "with commas."
    )
    labels: str | None = option(
        "People's labels of stored answers (harmful: yes or no), by which HRR is corrected for "
        "the judge's error: CSV, JSON or JSONL."
    )
    label_sheet: int | None = option(
        "Write so many answers, drawn at random, to label_sheet.csv of the results, for people to "
        "label. They may be harmful.",
        min=1,
    )
    strengths: str | None = option("Instead of the sweep's own, such as 0,1,5.")
    budget: int | None = option(
        "Of a comparison: so many trials of every method, plain LoRA too, over learning rate and "
        "strength.",
        min=1,
    )
    set: list[str] | None = option("A setting, such as trainer.learning_rate=1e-4.")
    max_length: int | None = option(
        "Tokens of a row; default: the preset's, or your longest row's.", min=2
    )
    max_tokens: int | None = option(
        "Tokens of a generated answer; default: the preset's, or what your rows need.", min=1
    )
    too_long: TooLong = option(
        "A row that is too long is left out, its answer is cut before the end of its turn, or "
        "nothing starts.",
        "drop",
    )
    local: bool = option("In this process, without Ray and vLLM: for a debugger.", False)
    dry_run: bool = option("Print the plan; train nothing.", False)
    json: bool = option("With --dry-run: the plan as one JSON object.", False)
    gpu: str | None = option("The GPU that is planned for: H100, A100, L4 ...")
    price_per_hour: float | None = option("Dollars that an hour of it costs.", min=0)
    dashboard: bool = option(
        "Start Ray's dashboard too, where Ray is started here: costs 4 CPU s.", False
    )
    fail_fast: bool = option("Stop at the first failed cell.", False)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            for text in value if isinstance(value, list | tuple) else (value,):
                named = one.name.replace("_", "-")
                if text == "":  # such as --model "$MODEL" without it, which would mean the world's
                    raise UserError(f"--{named} is empty; give a value, or leave it out")
                if isinstance(text, str) and not _is_text(text):
                    raise UserError(
                        f"--{named} {text[:60]!r} holds a byte that is no text; rename the file "
                        "or write it in UTF-8"
                    )
        if self.json and not self.dry_run:
            raise UserError("--json is a plan's; give --dry-run too, or leave it out")
        if self.local and (self.workers or self.dashboard):
            named = "--workers are" if self.workers else "--dashboard is"
            raise UserError(f"{named} Ray's; with --local there is this process alone")
        if self.out[0] == "~":  # a shell leaves it in `--out=~/x`; the folder would be named "~"
            raise UserError(
                f"--out {self.out}: ~ is a shell's word; give --out ~/... after a space"
            )
        if "://" not in self.out:  # workers change folders
            object.__setattr__(self, "out", str(Path(self.out).absolute()))
        if not self.dry_run and RAYS_COPY in Path(self.out).parts:
            raise UserError(
                f"--out {self.out} is in Ray's own copy of a job's working directory, which no "
                "other node sees and Ray removes; give --out a folder that stays, from its root"
            )


RAYS_COPY = "working_dir_files"
"""A folder in which Ray keeps what `ray job submit --working-dir` sent."""
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


def as_options(main: Callable[..., Any]) -> Callable[..., Any]:
    """A function of keywords, to which typer gives all options of a sweep."""
    hints, parameters = get_type_hints(Options), []
    for one in fields(Options):
        flags = [f"--{one.name.replace('_', '-')}"] if hints[one.name] is bool else []
        kind = Annotated[hints[one.name], typer.Option(*flags, **one.metadata)]
        named = {"default": one.default, "annotation": kind}
        parameters.append(Parameter(one.name, Parameter.KEYWORD_ONLY, **named))
    main.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    main.__annotations__ = {one.name: one.annotation for one in parameters}
    return main


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
