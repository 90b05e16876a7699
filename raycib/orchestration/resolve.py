"""From a preset and a person's own files to the setup of a sweep, fingerprints included."""

from raycib.data.rows import describe_rows, describe_task
from raycib.data.sources import stem
from raycib.errors import UserError
from raycib.model_files import describe
from raycib.orchestration.changes import read_changes
from raycib.orchestration.judge import describe_judge
from raycib.orchestration.options import Options
from raycib.orchestration.setup import Setup
from raycib.orchestration.tradeoff import resolve_tradeoff
from raycib.presets import Preset, TaskSource, preset
from raycib.spec import EvalSpec, TaskSpec


def resolve(options: Options, kind: str = "dose") -> Setup:
    """The setup that `options` name for a sweep of a kind: "gaps" measures those of the Trade-offs
    paper, "orders" has several tasks, one after the other. Reads every file once; raises
    `UserError` for bad input."""
    chosen = preset(options.preset)
    changes = read_changes(options.changes)
    gaps, sequence = kind == "gaps", kind == "orders"
    if options.orders is not None and not sequence:
        raise UserError("--orders is about task_orders; this sweep has no order of tasks")
    tasks, harmful = _tasks_of(chosen, kind), chosen.harmful
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
        own_tasks = tasks = _own_tasks(options.task, several=sequence)
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
    if sequence:
        resolved = _asked_of_all(resolved)
    source = options.model or (sequence and chosen.sequence_model) or chosen.model
    dtype = None if options.model else chosen.dtype  # a model of one's own has its own
    model = tradeoff.model if tradeoff else describe(source, dtype, options.chat)
    setup = Setup(
        preset=options.preset,
        model=model,
        tasks=resolved,
        safety_source=safety,
        base_source=base,
        sizes=sizes,
        given_lora=chosen.lora,
        given_trainer=(sequence and chosen.sequence_trainer) or chosen.trainer,
        seeds=tuple(range(options.seeds or chosen.seeds)),
        judge=describe_judge(
            options.judge or (None if options.judge_url else chosen.judge),
            options.judge_url,
            options.judge_profile,
            options.judge_key_env,
        ),
        execution=execution,
        options=options,
        changes=changes,
        tradeoff=tradeoff,
    )
    _ = setup.lora, setup.trainer  # read at once: a mistake is told before anything starts
    if options.safety is not None:
        _ = setup.safety
    if options.base is not None:
        _ = setup.base
    return setup


def _tasks_of(chosen: Preset, kind: str) -> dict[str, TaskSource]:
    """The preset's tasks for a sweep of a kind."""
    if kind == "orders":
        if len(chosen.sequence) < 2:
            raise UserError("this preset has no sequence of tasks; give --task a.jsonl,b.jsonl")
        return chosen.sequence
    names = (kind == "gaps" and chosen.tradeoff_tasks) or (chosen.task,)
    return {name: chosen.tasks[name] for name in names}


def _own_tasks(text: str, several: bool) -> dict[str, TaskSource]:
    """A person's own task, or a sequence of them."""
    files = text.split(",") if several else [text]
    names = [stem(file) for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--task {text!r}: {twice[0]!r} comes twice; a sequence has each task once")
    if several and len(files) < 2:
        raise UserError(f"--task {text!r}: one task has no order; give two or more, with commas")
    return {
        name: TaskSource(train=f"{file}#train", held_out=f"{file}#held-out")
        for name, file in zip(names, files, strict=True)
    }


def _asked_of_all(
    tasks: dict[str, tuple[TaskSpec, EvalSpec]],
) -> dict[str, tuple[TaskSpec, EvalSpec]]:
    """The same tasks with one evaluation for all: every task's held-out rows are asked after every
    stage; losses and representations are always measured on the first one's."""
    rows = tuple(
        evals.held_out.model_copy(update={"name": name}) for name, (_, evals) in tasks.items()
    )
    (_, first), *_ = tasks.values()
    evals = first.model_copy(update={"tasks": rows})
    return {name: (task, evals) for name, (task, _) in tasks.items()}


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
        held_out=describe_rows(f"{name} held out", source.held_out, *sizes, answered=True),
        probes=tuple(describe_rows(probe, rows, *sizes) for probe, rows in probes.items()),
    )
    return task, evals
