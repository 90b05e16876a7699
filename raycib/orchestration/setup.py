"""From a preset and a person's own files to the specs of a sweep, fingerprints included."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raycib.data.rows import describe_rows, describe_task
from raycib.errors import UserError
from raycib.evals.judges import ChatJudge
from raycib.grid import Arm, single_task
from raycib.model_files import TOKENIZER, WEIGHTS, describe, find, fingerprint
from raycib.orchestration.changes import Part, changed, read_changes
from raycib.orchestration.tradeoff import Tradeoff, resolve_tradeoff
from raycib.presets import Execution, Preset, TaskSource, preset
from raycib.spec import (
    METHODS,
    AnyMethod,
    EvalSpec,
    JudgeSpec,
    LoRASpec,
    ModelSpec,
    RunSpec,
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
    safety: str | None = None
    base: str | None = None
    alignment: str | None = None
    methods: str | None = None
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
    safety_source: str | None
    base_source: str | None
    """Read only once a method needs them: a base model may have to be fetched."""
    sizes: tuple[int, int]
    """Tokens of a training row, and of a generated answer."""
    lora: LoRASpec
    trainer: TrainerSpec
    seeds: tuple[int, ...]
    judge: JudgeSpec
    execution: Execution
    options: Options
    changes: dict[str, dict[str, Any]]
    tradeoff: Tradeoff | None = None
    """Where the sweep is about the gaps of the Trade-offs paper."""

    @cached_property
    def safety(self) -> TaskSpec | None:
        """Safety data, where there is some."""
        source = self.safety_source
        return describe_task("safety data", source, self.sizes[0]) if source else None

    @cached_property
    def base(self) -> ModelSpec | None:
        """The model before alignment, where there is one."""
        if self.base_source is None:
            return None
        base = describe(self.base_source, self.model.dtype)
        if base.weights == self.model.weights:
            raise UserError(
                f"--base {self.base_source!r} has the weights of the aligned model itself; give "
                "the model that it was made from"
            )
        return base

    def method(self, chosen: Part) -> Part:
        """A sweep's method with what the person changed of its kind."""
        return changed(chosen, self.changes.get(getattr(chosen, "kind", ""), {}))

    def at(self, kind: str, strength: float) -> AnyMethod | None:
        """A method at a strength, with what it needs and what the person changed of it; None where
        there is not what it needs."""
        fields = METHODS[kind].model_fields
        needs = {name: getattr(self, name) for name in ("safety", "base") if name in fields}
        if None in needs.values() or (METHODS[kind].stacked and self.safety is None):
            return None
        return self.method(METHODS[kind].at(strength, **needs))

    @cached_property
    def wanted(self) -> tuple[str, ...]:
        """Kinds of the methods asked for; `UserError` shows the menu where one does not exist."""
        if self.options.methods is None:
            return tuple(METHODS)
        wanted = tuple(kind.strip() for kind in self.options.methods.split(","))
        if unknown := [kind for kind in wanted if kind not in METHODS]:
            menu = ", ".join(f"{kind} ({m.about.name})" for kind, m in METHODS.items())
            raise UserError(f"--methods: no method {unknown[0]!r}; there is {menu}")
        return wanted

    def strengths(self, kind: str, default: Sequence[float]) -> tuple[float, ...]:
        """A sweep's strengths of a method, or the ones asked for instead; none where the method
        is not asked for."""
        if kind not in self.wanted:
            return ()
        if self.options.strengths is None:
            return tuple(default)
        try:
            return tuple(float(part) for part in self.options.strengths.split(","))
        except ValueError as error:
            raise UserError(
                f"--strengths {self.options.strengths!r}: {error}; give numbers like 0,1,5"
            ) from error

    def runs_of(self, rows: Iterable[AnyMethod | Arm]) -> list[RunSpec]:
        """One cell for each row of a sweep, each task and each seed."""
        return self.runs_on(self.tasks, rows)

    def runs_on(self, names: Iterable[str], rows: Iterable[AnyMethod | Arm]) -> list[RunSpec]:
        """The same on some of the tasks alone."""
        makers = [self.tradeoff.maker] if self.tradeoff and self.tradeoff.maker else []
        tasks = [self.tasks[name] for name in names]
        return single_task([self.model], tasks, rows, self.seeds, self.lora, self.trainer, makers)

    @property
    def model_name(self) -> str:
        """What tables call the aligned model."""
        maker = self.tradeoff.maker if self.tradeoff else None
        return f"{maker.model.source} aligned on {maker.task.name}" if maker else self.model.source

    @property
    def left_out(self) -> list[str]:
        """Methods that a comparison lacks here, and the option that would bring them in."""
        lacks = []
        for method in METHODS.values():
            fields = method.model_fields
            if self.base_source is None and "base" in fields:
                lacks.append(f"{method.about.name} (give --base)")
            if self.safety_source is None and ("safety" in fields or method.stacked):
                lacks.append(f"{method.about.name} (give --safety)")
        return lacks


def resolve(options: Options, gaps: bool = False) -> Setup:
    """The setup that `options` name; with `gaps`, one that measures the gaps of the Trade-offs
    paper. Reads every file once; raises `UserError` for bad input."""
    chosen = preset(options.preset)
    changes = read_changes(options.changes)
    names = chosen.tradeoff_tasks if gaps and chosen.tradeoff_tasks else (chosen.task,)
    tasks, harmful = {name: chosen.tasks[name] for name in names}, chosen.harmful
    benign, probes = chosen.benign, chosen.probes
    safety, base = options.safety or chosen.safety, options.base or chosen.base
    own_tasks: dict[str, TaskSource] = {}
    own_base = bool(gaps and options.base and not options.model)
    if options.model or options.task or options.harmful or own_base:
        # A model of one's own does not speak the preset's language, so none of its benchmarks
        # would mean anything: what is not given is not measured.
        if not (options.task and options.harmful):
            raise UserError(
                f"{'--base' if own_base else '--model'}, --task and --harmful go together: give a "
                "task and prompts"
            )
        own = options.task
        own_tasks = {Path(own).stem: TaskSource(train=f"{own}#train", held_out=f"{own}#held-out")}
        tasks = own_tasks
        harmful, benign, probes = options.harmful, None, {}
        safety, base = options.safety, options.base
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
    resolved = {n: _task(n, source, harmful, benign, probes, sizes) for n, source in tasks.items()}
    tradeoff = None
    if gaps:
        specs = {name: task for name, (task, _) in resolved.items()}
        tradeoff = resolve_tradeoff(options, chosen, bool(own_tasks), specs, sizes[0])
        resolved = {
            name: (task, evals.model_copy(update={"gaps": tradeoff.gaps(task, sizes)}))
            for name, (task, evals) in resolved.items()
        }
    model = tradeoff.model if tradeoff else describe(options.model or chosen.model, chosen.dtype)
    setup = Setup(
        preset=options.preset,
        model=model,
        tasks=resolved,
        safety_source=safety,
        base_source=base,
        sizes=sizes,
        lora=changed(chosen.lora, changes.get("lora", {})),
        trainer=changed(chosen.trainer, changes.get("trainer", {})),
        seeds=tuple(range(options.seeds or chosen.seeds)),
        judge=_judge(options, chosen),
        execution=execution,
        options=options,
        changes=changes,
        tradeoff=tradeoff,
    )
    if options.safety is not None:
        _ = setup.safety  # read at once: a mistake is told before anything starts
    if options.base is not None:
        _ = setup.base
    return setup


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
