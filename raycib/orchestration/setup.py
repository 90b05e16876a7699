"""From a preset and a person's own files to the specs of a sweep, fingerprints included."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raycib.data.rows import describe_rows, describe_task
from raycib.errors import UserError
from raycib.evals.judges import ChatJudge
from raycib.model_files import TOKENIZER, WEIGHTS, describe, find, fingerprint
from raycib.orchestration.changes import Part, changed, read_changes
from raycib.presets import Execution, Preset, TaskSource, preset
from raycib.spec import (
    EvalSpec,
    JudgeSpec,
    LoRASpec,
    ModelSpec,
    TaskSpec,
    TrainerSpec,
)


@dataclass(frozen=True)
class Options:
    """What a person may ask of any sweep; None keeps the preset's choice."""

    out: str = "runs"
    seeds: int | None = None
    preset: str = "world"
    workers: int | None = None
    pack: int | None = None
    model: str | None = None
    task: str | None = None
    harmful: str | None = None
    judge: str | None = None
    judge_url: str | None = None
    strengths: str | None = None
    changes: tuple[str, ...] = ()
    """Settings as `part.name=value`; a part is `trainer`, `lora` or a method's kind."""
    max_length: int | None = None
    max_tokens: int | None = None
    dry_run: bool = False
    fail_fast: bool = False


@dataclass(frozen=True)
class Setup:
    """Everything a sweep is about, resolved and fingerprinted."""

    preset: str
    model: ModelSpec
    tasks: dict[str, tuple[TaskSpec, EvalSpec]]
    lora: LoRASpec
    trainer: TrainerSpec
    seeds: tuple[int, ...]
    judge: JudgeSpec
    execution: Execution
    options: Options
    changes: dict[str, dict[str, Any]]

    def method(self, chosen: Part) -> Part:
        """A sweep's method with what the person changed of its kind."""
        return changed(chosen, self.changes.get(getattr(chosen, "kind", ""), {}))

    def strengths(self, default: Sequence[float]) -> tuple[float, ...]:
        """A sweep's strengths, or the ones asked for instead."""
        if self.options.strengths is None:
            return tuple(default)
        try:
            return tuple(float(part) for part in self.options.strengths.split(","))
        except ValueError as error:
            raise UserError(
                f"--strengths {self.options.strengths!r}: {error}; give numbers like 0,1,5"
            ) from error


def resolve(options: Options) -> Setup:
    """The setup that `options` name. Reads every file once; raises `UserError` for bad input."""
    chosen = preset(options.preset)
    changes = read_changes(options.changes)
    model = describe(options.model or chosen.model, chosen.dtype)
    tasks, harmful = {chosen.task: chosen.tasks[chosen.task]}, chosen.harmful
    benign, probes = chosen.benign, chosen.probes
    if options.model or options.task or options.harmful:
        # A model of one's own does not speak the preset's language, so none of its benchmarks
        # would mean anything: what is not given is not measured.
        if not (options.task and options.harmful):
            raise UserError("--model, --task and --harmful go together: give a task and prompts")
        own = options.task
        tasks = {Path(own).stem: TaskSource(train=f"{own}#train", held_out=f"{own}#held-out")}
        harmful, benign, probes = options.harmful, None, {}
    if (
        harmful != chosen.harmful
        and chosen.judge == "world:guard"
        and not (options.judge or options.judge_url)
    ):
        raise UserError(
            "the embedded world's judge reads only the world's words; "
            "give --judge (a guard model's folder or hub id) or --judge-url"
        )
    execution = chosen.execution
    if options.workers is not None:
        execution = execution.model_copy(update={"workers": options.workers})
    if options.pack is not None:
        execution = execution.model_copy(update={"pack_size": options.pack})
    sizes = (options.max_length or chosen.max_length, options.max_tokens or chosen.max_tokens)
    return Setup(
        preset=options.preset,
        model=model,
        tasks={n: _task(n, source, harmful, benign, probes, sizes) for n, source in tasks.items()},
        lora=changed(chosen.lora, changes.get("lora", {})),
        trainer=changed(chosen.trainer, changes.get("trainer", {})),
        seeds=tuple(range(options.seeds or chosen.seeds)),
        judge=_judge(options, chosen),
        execution=execution,
        options=options,
        changes=changes,
    )


def _task(
    name: str,
    source: TaskSource,
    harmful: str,
    benign: str | None,
    probes: dict[str, str],
    sizes: tuple[int, int],
) -> tuple[TaskSpec, EvalSpec]:
    task = describe_task(name, source.train, sizes[0])
    evals = EvalSpec(
        harmful=describe_rows("harmful", harmful, *sizes),
        benign=describe_rows("benign", benign, *sizes) if benign else None,
        held_out=describe_rows(f"{name} held out", source.held_out, *sizes),
        probes=tuple(describe_rows(probe, rows, *sizes) for probe, rows in probes.items()),
    )
    return task, evals


def _judge(options: Options, chosen: Preset) -> JudgeSpec:
    if options.judge_url:
        model = options.judge or ChatJudge(options.judge_url).model
        return JudgeSpec(kind="endpoint", source=options.judge_url, weights=model)
    source = options.judge or chosen.judge
    folder = find(source)
    return JudgeSpec(
        kind="guard",
        source=source,
        weights=fingerprint(folder, WEIGHTS),
        tokenizer=fingerprint(folder, TOKENIZER),
        categories=chosen.judge_categories,
        prefix=chosen.judge_prefix,
    )
