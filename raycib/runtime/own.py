"""A model and data of one's own in the place of a preset's: what of a preset is then not meant."""

from dataclasses import dataclass

from raycib.config.presets import Execution, Preset, TaskSource, for_own_model
from raycib.costs.gpus import gpus_here
from raycib.data.origins import origin
from raycib.data.sources import named
from raycib.errors import UserError
from raycib.model_files import is_shipped
from raycib.runtime import joins_a_cluster
from raycib.runtime.options import Options
from raycib.runtime.overrides import ratios
from raycib.runtime.study import Study

DEFAULT_PRESET = "world"
OWN_MODEL = "default for own models"
"""What settings are called that no preset gave."""


@dataclass(frozen=True)
class Sources:
    """Where the rows and the base of a sweep are."""

    tasks: dict[str, TaskSource]
    harmful: str
    other_harmful: dict[str, str]
    """By what tables call them."""
    benign: str | None
    probes: dict[str, str]
    safety: str | None
    harmful_data: str | None
    """Rows to hide among a task's, where that is asked for."""
    base: str | None
    alignment: str | None
    """Rows that the base is to be aligned on, or that the model was."""
    own: bool
    """Whether they are a person's, so that nothing of the preset's data is meant."""


def sources_of(options: Options, chosen: Preset, study: Study) -> Sources:
    """The data that `options` name for a study; `UserError` where some is missing.

    A model of one's own does not speak the embedded world's language, so none of its benchmarks
    would mean anything: what is not given is not measured. Other presets' data may be asked of any.
    """
    model = study.own_model(options)
    named_tasks = _of_the_preset(options.task, chosen)
    foreign = model and is_shipped(chosen.model or "")
    own = bool(foreign or options.harmful or (options.task and not named_tasks))
    probes = chosen.probes
    if options.probes is not None or own:
        probes = named("--probes", options.probes) if options.probes else {}
    further = named("--other-harmful", options.other_harmful) if options.other_harmful else {}
    harmful_data = options.harmful_data
    if options.harmful_ratio is not None:
        harmful_data = harmful_data or (None if own else chosen.harmful_data)
        if harmful_data is None and any(ratios(options.harmful_ratio)):
            raise UserError(
                "--harmful-ratio hides harmful rows among a task's; give harmful prompts with "
                "harmful answers, none of them asked, with --harmful-data"
            )
    elif harmful_data:
        raise UserError("--harmful-data are rows for --harmful-ratio; give it, or leave them out")
    if own and not (options.task and options.harmful):
        raise UserError(
            f"{'--base' if model and not options.model else '--model'}, --task and --harmful go "
            "together: give a task and prompts"
        )
    harmful = options.harmful or chosen.harmful
    unread = is_shipped(chosen.judge) and not all(
        origin(one).own_language for one in (harmful, *further.values())
    )
    if own and unread and not (options.judge or options.judge_url):
        raise UserError(
            "the embedded world's judge reads only the world's words; "
            "give --judge (a guard model's folder or hub id) or --judge-url, or have what is not "
            "refused counted: --judge refusal-rule"
        )
    made = chosen.model is None and not options.model
    starts_there = made if own else not options.model
    return Sources(
        tasks=study.tasks(_with_tasks(chosen, named_tasks), options.task if own else None),
        harmful=harmful,
        other_harmful=further,
        benign=options.benign or (None if own else chosen.benign),
        probes=probes,
        safety=options.safety or (None if own else chosen.safety),
        harmful_data=harmful_data,
        base=options.base or (chosen.base if starts_there else None),
        alignment=options.alignment or (chosen.alignment if made else None),
        own=own,
    )


def _of_the_preset(names: str | None, chosen: Preset) -> list[str]:
    """The tasks of a preset that `--task` names; none where it names files."""
    parts = names.split(",") if names else []
    return parts if all(name in chosen.tasks for name in parts) else []


def _with_tasks(chosen: Preset, names: list[str]) -> Preset:
    """The preset with these of its tasks, in this order; with all it has where there are none."""
    if not names:
        return chosen
    known = chosen.tasks | chosen.sequence
    several = {"tradeoff_tasks": tuple(names), "sequence": {name: known[name] for name in names}}
    first, *further = names
    return chosen.model_copy(update={"task": first, "further_tasks": tuple(further), **several})


def settings_of_model(options: Options, chosen: Preset, study: Study) -> tuple[Preset, str]:
    """The preset whose settings fit the model that `options` name, and what they are called.
    Settings are a model's: one of one's own has defaults instead, unless a preset is named."""
    model = study.own_model(options)
    if options.preset is not None or model is None or is_shipped(model):
        return chosen, f"preset {options.preset or DEFAULT_PRESET}"
    return for_own_model(chosen, gpu_in_reach(options.local)), OWN_MODEL


def gpu_in_reach(local: bool) -> bool:
    """Whether this machine, or without `local` the cluster of `RAY_ADDRESS`, has an NVIDIA GPU."""
    if joins_a_cluster() and not local:
        from raycib.runtime.cluster import connect  # imports Ray

        return connect(Execution()).resources.get("GPU", 0.0) > 0
    return bool(gpus_here())
