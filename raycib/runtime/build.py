"""From a preset and a person's own files to the setup of a sweep, fingerprints included."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from raycib.config import EvalSpec, TaskSpec
from raycib.config.presets import Preset, TaskSource, preset
from raycib.data.rows import Loaded, describe_task, read_rows
from raycib.errors import NotHere, UserError
from raycib.runtime.benchmarks import benchmarks_of
from raycib.runtime.execution import base_format, engine_of, execution_of
from raycib.runtime.harmful_rows import sources_with_harmful, with_harmful
from raycib.runtime.named_judges import named_judges
from raycib.runtime.options import Options
from raycib.runtime.overlaps import refuse_overlaps
from raycib.runtime.overrides import ALIGNMENT, changed, numbers, read_changes, read_methods
from raycib.runtime.own import (
    DEFAULT_PRESET,
    OWN_MODEL,
    Sources,
    settings_of_model,
    sources_of,
)
from raycib.runtime.planning.reader import Reader
from raycib.runtime.row_sets import RowSets
from raycib.runtime.scoring import scored
from raycib.runtime.study import Given, Study, refuse_others
from raycib.runtime.sweep_config import SweepConfig
from raycib.runtime.token_counts import TokenCounts
from raycib.runtime.told_answers import told_answers
from raycib.store import whole_root

LOOKS, LOOKS_EVERY = "harmful, at looks", 2
"""Harmful prompts that are answered in the middle of training: every second one. Ten looks with all
of them are half of a sweep's CPU time again in the embedded world, with these about a quarter."""
OF_ROWS = (
    "tasks", "harmful", "other_harmful", "benign", "probes", "safety", "harmful_data", "alignment",
)  # fmt: skip
"""Where the rows of a sweep are, in `Sources`."""
OF_ALIGNMENT = ("alignment", "alignment_held_out", "proxies")
"""Where those are, in a preset, that its model is aligned on."""
LEAST_HELD_OUT = 2
"""Rows of a task."""


def build_config(options: Options, study: Study, reader: Reader | None = None) -> SweepConfig:
    """The setup that `options` name for a study. Reads every file once; raises `UserError` for bad
    input."""
    refuse_others(options, study)
    reader = reader or Reader()
    chosen = study.preset(preset(options.preset or DEFAULT_PRESET))
    if options.methods is not None:  # first: a method of one's own may be changed like any
        read_methods(options.methods)
    overrides = read_changes(options.set or ())
    if options.strengths is not None:
        numbers(options.strengths)
    given = sources_of(options, chosen, study)
    given = replace(given, **_within_reach(given, OF_ROWS, reader))
    read = _read(given, options)
    notes = refuse_overlaps(given, lambda source: (read.get(source) or read_rows(source)).rows)
    notes += told_answers(given, read)
    chosen, origin = settings_of_model(options, chosen, study)
    execution = execution_of(chosen.execution, options, overrides)
    held = base_format(options, overrides, execution, study)
    aligning = overrides.get(ALIGNMENT, {})
    how = changed(ALIGNMENT, chosen.alignment_trainer, aligning)
    aligned = _within_reach(chosen, OF_ALIGNMENT, reader)
    chosen = chosen.model_copy(update={"alignment_trainer": how})
    choice = Given(options, chosen.model_copy(update=aligned), given.own, reader)
    model = first = study.first_model(choice)
    counts = reader.counts(model, options.out, read)
    seeds = tuple(range(options.seeds or chosen.seeds))
    hidden = sources_with_harmful(given, options.harmful_ratio, seeds)
    sets = _sets(counts, given, options, None if origin == OWN_MODEL else chosen, hidden)
    resolved = {name: _task(name, given, sets) for name in given.tasks}
    looks = None
    if options.hrr_every is not None:
        looks = sets.prompts(LOOKS, f"{given.harmful}#every-{LOOKS_EVERY}")
    specs = {name: task for name, (task, _) in resolved.items()}
    inputs = study.inputs(choice, model, specs, sets)
    if aligning and not inputs.alignment_stage:
        raise UserError(
            f"--set {ALIGNMENT}.{next(iter(aligning))}: the model is aligned already; give --base "
            "with --alignment ROWS to have one aligned, or leave it out"
        )
    if inputs.alignment_stage:
        model = inputs.alignment_stage.made_model(whole_root(options.out))
    model = model.model_copy(update={**dict(held), "notes": sets.counts.notes})
    benchmarks = benchmarks_of(options, first, sets.context)
    besides = {"looks": looks, "engine": engine_of(options, model), "benchmarks": benchmarks}
    asked = {}
    for name, (task, evals) in resolved.items():
        besides["measures"] = study.measures(task, inputs, sets)
        asked[name] = task, scored(evals.model_copy(update=besides), options.scorer)
    tasks, drawn = with_harmful(study.evaluations(asked), given, options.harmful_ratio, seeds, sets)
    setup = SweepConfig(
        study=study,
        inputs=inputs,
        origin=origin,
        preset=chosen,
        notes=notes,
        model=model,
        tasks=tasks,
        drawn=drawn,
        safety_source=given.safety,
        base_source=given.base,
        sets=sets,
        seeds=seeds,
        judges=named_judges(options, chosen.judge, reader.judge),
        execution=execution,
        options=options,
        reader=reader,
        overrides=overrides,
    )
    _ = setup.lora, setup.trainer  # read at once: a mistake is told before anything starts
    if options.safety is not None:
        _ = setup.safety
    if options.base is not None:
        _ = setup.base
    return setup


def _within_reach(
    of: Sources | Preset, names: Sequence[str], reader: Reader
) -> dict[str, dict[str, Any] | str | None]:
    """The fields of some `names` with their sources, each as it is read."""

    def read(value: Any) -> Any:
        if isinstance(value, TaskSource):
            return TaskSource(train=read(value.train), held_out=read(value.held_out))
        if isinstance(value, dict):
            return {name: read(one) for name, one in value.items()}
        return value and reader.source(value)

    return {name: read(getattr(of, name)) for name in names}


def _read(given: Sources, options: Options) -> dict[str, Loaded]:
    """All rows that are given, by source: what is wrong with them is told before a model is
    hashed, which takes a minute for a large one."""
    tasks = given.tasks.values()
    options_of = {part: "--task" for one in tasks for part in (one.train, one.held_out)}
    options_of |= {given.harmful: "--harmful"} | dict.fromkeys(given.probes.values(), "--probes")
    options_of |= dict.fromkeys(given.other_harmful.values(), "--other-harmful")
    others = {given.benign: "--benign", options.safety: "--safety", given.alignment: "--alignment"}
    others[given.harmful_data] = "--harmful-data"
    options_of |= {source: option for source, option in others.items() if source}
    read: dict[str, Loaded] = {}
    for source, option in options_of.items():
        try:
            read[source] = read_rows(source)
        except NotHere as error:
            raise NotHere(f"{error}; or give a file with {option}") from error
    for source in filter(None, (*(one.train for one in tasks), given.harmful_data)):
        describe_task("", source, 1, read[source])
    return read


def _sets(
    counts: TokenCounts,
    given: Sources,
    options: Options,
    preset: Preset | None,
    hidden: Sequence[str],
) -> RowSets:
    """What describes rows for a model, its tokens of a row and of an answer chosen: those that are
    given, or a preset's, or else what the rows need; `hidden` are the tasks' with harmful ones."""
    sets = RowSets(counts, options.too_long)
    tasks = given.tasks.values()
    trained, held_out = [one.train for one in tasks], [one.held_out for one in tasks]
    trained += hidden
    aside = list(filter(None, (options.safety, given.alignment)))
    asked = [*filter(None, (given.harmful, given.benign)), *given.probes.values()]
    asked += [f"{given.harmful}#every-{LOOKS_EVERY}"] * (options.hrr_every is not None)
    asked += given.other_harmful.values()
    sizes = (
        options.max_length or (preset and preset.max_length),
        options.max_tokens or (preset and preset.max_tokens),
    )
    sets.choose_sizes(sizes, [*trained, *aside], held_out, asked)
    return sets


def _task(name: str, given: Sources, sets: RowSets) -> tuple[TaskSpec, EvalSpec]:
    source, benign = given.tasks[name], given.benign
    task = sets.task(name, source.train)
    held_out = sets.held_out(f"{name} held out", source.held_out)
    if held_out.num_rows < LEAST_HELD_OUT:
        raise UserError(
            f"{source.held_out!r} has {held_out.num_rows} held-out row, and I(Z;C) tells rows "
            f"apart; give {LEAST_HELD_OUT} or more (of a file of one's own every tenth is one)"
        )
    evals = EvalSpec(
        harmful=sets.prompts("harmful", given.harmful),
        other_harmful=tuple(sets.prompts(*one) for one in given.other_harmful.items()),
        benign=sets.prompts("benign", benign) if benign else None,
        held_out=held_out,
        probes=tuple(sets.prompts(probe, rows) for probe, rows in given.probes.items()),
    )
    return task, evals
