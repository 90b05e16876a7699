"""From a preset and a person's own files to the setup of a sweep, fingerprints included."""

from raycib.data.rows import describe_rows, describe_task
from raycib.errors import UserError
from raycib.model_files import describe
from raycib.orchestration.changes import numbers, read_changes
from raycib.orchestration.judge import describe_judge
from raycib.orchestration.options import Options
from raycib.orchestration.overlaps import refuse_overlaps
from raycib.orchestration.own import DEFAULT_PRESET, settings_of_model, sources_of
from raycib.orchestration.scoring import scored
from raycib.orchestration.setup import Setup
from raycib.orchestration.tradeoff import resolve_tradeoff
from raycib.presets import TaskSource, preset
from raycib.spec import EvalSpec, TaskSpec


def resolve(options: Options, kind: str = "dose") -> Setup:
    """The setup that `options` name for a sweep of a kind: "gaps" measures those of the Trade-offs
    paper, "orders" has several tasks, one after the other. Reads every file once; raises
    `UserError` for bad input."""
    chosen = preset(options.preset or DEFAULT_PRESET)
    changes = read_changes(options.changes)
    if options.strengths is not None:
        numbers(options.strengths)
    gaps, sequence = kind == "gaps", kind == "orders"
    if options.orders is not None and not sequence:
        raise UserError("--orders is about task_orders; this sweep has no order of tasks")
    given = sources_of(options, chosen, kind)
    notes = refuse_overlaps(given, options.alignment)
    chosen, origin = settings_of_model(options, chosen, kind)
    tasks, harmful, benign, probes = given.tasks, given.harmful, given.benign, given.probes
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
        tradeoff = resolve_tradeoff(options, chosen, given.own, specs, sizes[0])
        resolved = {
            name: (task, evals.model_copy(update={"gaps": tradeoff.gaps(task, sizes)}))
            for name, (task, evals) in resolved.items()
        }
    resolved = {n: (task, scored(evals, options.scorer)) for n, (task, evals) in resolved.items()}
    if sequence:
        resolved = _asked_of_all(resolved)
    source = options.model or (sequence and chosen.sequence_model) or chosen.model
    dtype = None if options.model else chosen.dtype  # a model of one's own has its own
    model = tradeoff.model if tradeoff else describe(source, dtype, options.chat)
    setup = Setup(
        origin=origin,
        notes=notes,
        model=model,
        tasks=resolved,
        safety_source=given.safety,
        base_source=given.base,
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
