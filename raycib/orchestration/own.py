"""A model and data of one's own in the place of a preset's: what of a preset is then not meant."""

import os
from dataclasses import dataclass
from pathlib import Path

from raycib.data.sources import several, stem
from raycib.errors import UserError
from raycib.model_files import is_shipped
from raycib.orchestration.options import Options
from raycib.presets import Execution, Preset, TaskSource, for_own_model

DEFAULT_PRESET = "world"
OWN_MODEL = "default for own models"
"""What settings are called that no preset gave."""


@dataclass(frozen=True)
class Sources:
    """Where the rows and the base of a sweep are."""

    tasks: dict[str, TaskSource]
    harmful: str
    benign: str | None
    probes: dict[str, str]
    safety: str | None
    base: str | None
    own: bool
    """Whether they are a person's, so that nothing of the preset's data is meant."""


def sources_of(options: Options, chosen: Preset, kind: str) -> Sources:
    """The data that `options` name for a sweep of a kind; `UserError` where some is missing.

    A model of one's own does not speak the preset's language, so none of its benchmarks would mean
    anything: what is not given is not measured.
    """
    aligns_base = kind == "gaps" and bool(options.base) and not options.model
    own = bool(options.model or options.task or options.harmful or aligns_base)
    probes = chosen.probes
    if options.probes is not None or own:
        probes = _named("--probes", options.probes) if options.probes else {}
    if not own:
        return Sources(
            tasks=_tasks_of(chosen, kind),
            harmful=chosen.harmful,
            benign=options.benign or chosen.benign,
            probes=probes,
            safety=options.safety or chosen.safety,
            base=options.base or chosen.base,
            own=False,
        )
    if not (options.task and options.harmful):
        raise UserError(
            f"{'--base' if aligns_base else '--model'}, --task and --harmful go together: give a "
            "task and prompts"
        )
    unread = options.harmful != chosen.harmful and chosen.judge == "world:guard"
    if unread and not (options.judge or options.judge_url):
        raise UserError(
            "the embedded world's judge reads only the world's words; "
            "give --judge (a guard model's folder or hub id) or --judge-url"
        )
    return Sources(
        tasks=_own_tasks(options.task, several=kind == "orders"),
        harmful=options.harmful,
        benign=options.benign,
        probes=probes,
        safety=options.safety,
        base=options.base,
        own=True,
    )


def settings_of_model(options: Options, chosen: Preset, kind: str) -> tuple[Preset, str]:
    """The preset whose settings fit the model that `options` name, and what they are called.
    Settings are a model's: one of one's own has defaults instead, unless a preset is named."""
    model = options.model or (kind == "gaps" and options.base) or None
    if options.preset is not None or model is None or is_shipped(model):
        return chosen, f"preset {options.preset or DEFAULT_PRESET}"
    return for_own_model(chosen, gpu_in_reach()), OWN_MODEL


def gpu_in_reach() -> bool:
    """Whether this machine, or the cluster of `RAY_ADDRESS`, has an NVIDIA GPU. Asks the driver's
    files: torch is not imported for a plan."""
    if os.environ.get("RAY_ADDRESS"):  # else Ray is not imported for a plan either
        import ray

        from raycib.orchestration.cluster import connect, is_shared

        if is_shared():
            connect(Execution())
            return ray.cluster_resources().get("GPU", 0.0) > 0
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


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
    files = _named("--task", text) if several else {stem(text): text}
    if several and len(files) < 2:
        raise UserError(f"--task {text!r}: one task has no order; give two or more, with commas")
    return {
        name: TaskSource(train=f"{file}#train", held_out=f"{file}#held-out")
        for name, file in files.items()
    }


def _named(option: str, text: str) -> dict[str, str]:
    """Files with commas between them, by what tables call them."""
    files = several(text)
    names = [stem(file) for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{option} {text!r}: {twice[0]!r} comes twice; give each once")
    return dict(zip(names, files, strict=True))
