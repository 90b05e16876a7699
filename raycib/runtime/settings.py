"""What a sweep is set to and where each setting comes from: its first lines, and a table."""

from collections.abc import Iterator, Sequence

from raycib.config import JudgeSpec, RunSpec, StageSpec
from raycib.config.presets import UNSAID
from raycib.config.presets.papers import BENIGN
from raycib.counting import count
from raycib.data.origins import ASSUMED, origin
from raycib.evals.content_judge import CONTENT
from raycib.evals.judge_profiles import INSTRUCT
from raycib.metrics import FEW_ROWS
from raycib.results import Setting
from raycib.runtime.execution import engine_of
from raycib.runtime.overrides import ALIGNMENT, BASE, EXECUTION
from raycib.runtime.own import OWN_MODEL
from raycib.runtime.scoring import scorer_name
from raycib.runtime.sweep_config import SweepConfig

MUCH = 0.25
"""Share of a training in which the learning rate still rises, or a method does nothing yet, from
which on it is said."""


OURS = "ours: "
"""Begins the origin of what a preset's paper does not say as it is here."""


def settings_of(setup: SweepConfig, runs: Sequence[RunSpec]) -> list[Setting]:
    """All that a reader needs to repeat the sweep, in the order in which it is printed."""
    answered = (_engine(setup), *_judge(setup))
    found = [*_training(setup, runs), *_lengths(setup), *answered, *_scorers(setup)]
    return [*(_marked(one, setup) for one in found), *_open(setup, found)]


def _marked(one: Setting, setup: SweepConfig) -> Setting:
    """A setting of a preset, marked where its paper leaves it open or has it otherwise."""
    reason = setup.preset.ours.get(one.name)
    return one.but(origin=f"{OURS}{reason}") if reason and one.origin == setup.origin else one


def _open(setup: SweepConfig, found: Sequence[Setting]) -> Iterator[Setting]:
    """What else a preset's paper leaves open."""
    names = {one.name for one in found}
    for name, value in setup.preset.ours.items():
        if name not in names:
            yield Setting(name=name, value=value, origin=f"{OURS}{UNSAID}")


def _training(setup: SweepConfig, runs: Sequence[RunSpec]) -> Iterator[Setting]:
    def found(part: str, field: str, name: str) -> Setting:
        value = getattr(getattr(setup, part), field)
        origin = f"--set {part}.{field}" if field in setup.overrides.get(part, {}) else setup.origin
        said = f"{value:g}" if isinstance(value, float) else str(value)
        return Setting(name=name, value=said, origin=origin)

    if setup.preset.paper:
        paper = setup.preset.paper
        yield Setting(name="settings of the", value=paper, origin=setup.origin)
    yield found("trainer", "learning_rate", "learning rate")
    yield found("trainer", "schedule", "schedule")
    yield found("trainer", "batch_size", "batch")
    yield found("trainer", "epochs", "epochs")
    yield found("trainer", "warmup_steps", "warm-up steps")
    yield found("lora", "rank", "rank")
    yield found("lora", "alpha", "alpha")
    whose = "its files" if setup.options.model or setup.origin == OWN_MODEL else setup.origin
    yield Setting(name="precision", value=setup.model.dtype, origin=whose)
    if (quantization := setup.model.quantization) is not None:
        yield Setting(
            name="linear layers of the base",
            value=f"{quantization.upper()} by bitsandbytes",
            origin=f"--set {BASE}.quantization",
        )
    if stage := setup.inputs.alignment_stage:
        how = stage.trainer
        value = f"{how.learning_rate:g}, batch {how.batch_size}, epochs {how.epochs}, steps"
        value += f" {stage.steps}" + ", in bfloat16" * (how.precision == "bfloat16")
        changes = [f"--set {ALIGNMENT}.{name}" for name in setup.overrides.get(ALIGNMENT, {})]
        yield Setting(
            name="aligning the base: learning rate",
            value=value,
            origin=", ".join(changes) or setup.origin,
        )
    for name, value in setup.overrides.get(EXECUTION, {}).items():
        yield Setting(
            name=f"{EXECUTION}.{name}", value=str(value), origin=f"--set {EXECUTION}.{name}"
        )
    steps = {run.final.task.name: run.final.steps for run in reversed(runs) if run.final.steps}
    for task, number in steps.items():
        yield Setting(name=f"steps of {task}", value=str(number), origin="its rows")


def _lengths(setup: SweepConfig) -> Iterator[Setting]:
    options = setup.options
    usual = "its rows" if setup.origin == OWN_MODEL else setup.origin
    for name, value, given in (
        ("tokens of a row", setup.sizes[0], "--max-length" if options.max_length else ""),
        ("tokens of an answer", setup.sizes[1], "--max-tokens" if options.max_tokens else ""),
    ):
        yield Setting(name=name, value=str(value), origin=given or usual)


def _engine(setup: SweepConfig) -> Setting:
    engine, whose = "vLLM", setup.origin
    if engine_of(setup.options, setup.model) == "transformers":
        why = "--local" if setup.options.local else f"--set {BASE}.quantization"
        engine, whose = "transformers", why
    return Setting(name="answers by", value=engine, origin=whose)


def _judge(setup: SweepConfig) -> Iterator[Setting]:
    options = setup.options
    given = "--judge-url" if options.judge_url else "--judge" if options.judge else setup.origin
    for number, one in enumerate(setup.judges, 1):
        judge, name = one.spec, f"judge {number}" if number > 1 else "judge"
        weights = judge.weights if judge.kind == "endpoint" else judge.weights[:12]
        value = f"{judge.source} {weights}" + CONTENT * judge.content
        yield Setting(name=name, value=value, origin=given)
        if judge.kind == "rule":
            continue
        known = "--judge-profile" if options.judge_profile else _known(judge)
        yield Setting(name=f"{name} profile", value=judge.profile, origin=known)
        count = str(len(judge.categories))
        yield Setting(name=f"{name} categories", value=count, origin="its profile")


def _known(judge: JudgeSpec) -> str:
    """What tells how a judge is asked."""
    if judge.kind == "guard":
        return "known by its files or name"
    return "no guard by its name" if judge.profile == INSTRUCT.name else "known by its name"


def _scorers(setup: SweepConfig) -> Iterator[Setting]:
    evals = [evals for _, evals in setup.tasks.values()]
    sets = {rows.source: rows for one in evals for rows in (one.held_out, *one.tasks, *one.probes)}
    for rows in sets.values():
        how = scorer_name(rows)
        if origin(rows.source).is_correct is None and not rows.source.startswith(ASSUMED):
            whose = "named" if rows.scorer else "its rows"
            yield Setting(name=f"accuracy of {rows.name}", value=how, origin=whose)


def in_lines(settings: Sequence[Setting], usual: str) -> list[str]:
    """A line each: settings whose origin is the usual one, those that its paper does not say so,
    and the others with their origins."""
    said: dict[str, list[str]] = {usual: [], OURS: [], "": []}
    for one in settings:
        whence, told = one.origin, f"{one.name} {one.value}"
        ours = whence.startswith(OURS)
        reason = "" if whence in (usual, f"{OURS}{UNSAID}") else f" ({whence.removeprefix(OURS)})"
        said[OURS if ours else usual if whence == usual else ""].append(told + reason)
    heads = {usual: f"{usual}: ", OURS: "ours, not the paper's: ", "": "besides: "}
    return [
        heads[kind] + ("; " if kind == OURS else ", ").join(parts)
        for kind, parts in said.items()
        if parts
    ]


def unmeasured(setup: SweepConfig) -> list[str]:
    """What a reader will look for and this sweep does not measure, in a line each, with what would
    mend it."""
    evals = [evals for _, evals in setup.tasks.values()]
    found = []
    if any(one.benign is None for one in evals):
        found.append(
            "over-refusal is not measured: give harmless prompts with --benign, such as XSTest's "
            f"safe ones ({BENIGN})"
        )
    if not any(one.probes for one in evals):
        others = any(one.benchmarks for one in evals)
        mend = (
            "benchmarks of lm-eval have a table of their own"
            if others
            else "give --probes, or benchmarks with --evals arc_challenge,boolq,hellaswag"
        )
        found.append(f"utility is the probes', and there are none: {mend}")
    return found


def cautions(runs: Sequence[RunSpec]) -> list[str]:
    """What does not fit a small task, in a line each: a batch of more rows than there are, a
    warm-up that is much of the training."""
    found: dict[str, None] = {}
    for run in runs:
        stage, trainer = run.final, run.final.trainer
        rows, steps, warm_up = stage.task.num_rows, stage.steps, trainer.warmup_steps
        if not steps:
            continue
        told = count(steps, "step")
        if run.hrr_every and not run.points:
            found[
                f"--hrr-every {run.hrr_every}: {stage.task.name} has {told}, so that no look is "
                "between the first and the last"
            ] = None
        if (held_out := run.evals.held_out.num_rows) < FEW_ROWS:
            found[
                f"{stage.task.name} has {count(held_out, 'held-out row')}: task loss, accuracy and "
                "I(Z;C) are about no more (every tenth row is held out: give more)"
            ] = None
        if trainer.batch_size > rows:
            found[
                f"the batch of {trainer.batch_size} is more than the {count(rows, 'row')} of "
                f"{stage.task.name}: {told} (--set trainer.batch_size=8)"
            ] = None
        if warm_up >= MUCH * steps:
            share = "all" if warm_up >= steps else f"{warm_up / steps:.0%}"
            found[
                f"the warm-up of {count(warm_up, 'step')} is {share} of the {told} of "
                f"{stage.task.name} (--set trainer.warmup_steps={steps // 10})"
            ] = None
        found |= dict.fromkeys(_idle(stage) for stage in run.adapters)
    return [note for note in found if note]


def _idle(stage: StageSpec) -> str:
    """Says so where a stage's method begins late, or never; "" where it does not."""
    method, rows = stage.method_in_effect, stage.task.num_rows
    idle, steps = method.idle_steps(min(stage.trainer.batch_size, rows)), stage.steps
    if not steps or idle < MUCH * steps:
        return ""
    where = f"of the {count(steps, 'step')} of {stage.task.name}"
    fewer = "" if getattr(method, "num_negatives", 0) <= 8 else "--set cib.num_negatives=8, or "
    mend = f"its queue fills too slowly ({fewer}give more rows)"
    if idle >= steps:
        return f"{method.kind} does nothing in any {where}: its cells are plain LoRA; {mend}"
    return f"{method.kind} does nothing in the first {idle:g} {where}; {mend}"
