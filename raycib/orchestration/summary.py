"""What a sweep found, as one JSON object: every cell with its scores, and where they come from."""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from raycib.data.origins import origin
from raycib.evals.gaps import gap_scores
from raycib.evals.scores import Missing, samples, score
from raycib.orchestration.files import files_read
from raycib.orchestration.judge import account
from raycib.orchestration.settings import Setting, settings_of
from raycib.orchestration.sweep import Sweep
from raycib.orchestration.theory import theory
from raycib.plan import Plan
from raycib.provenance import versions
from raycib.spec import PlainLoRA, RunSpec, StageSpec
from raycib.store import Store
from raycib.store.kinds import STAGES
from raycib.studies.continual.scores import continual_scores

FORMAT = 1
HISTORY_FILE = "history.json"
LORA_VARIANT = "lora_variant"


def summarise(
    sweep: Sweep,
    asked: tuple[str, str, str],
    plan: Plan,
    failures: dict[str, str],
    counts: dict[str, int],
    timings: dict[str, float],
) -> dict[str, Any]:
    """The content of `summary.json`; `asked` is the sweep's name, question and kind.

    Rates are in [0, 1] with 95 % intervals, losses and information in nats. `counts` are of the
    run that wrote the summary, except for those of `analysis.measured.OF_THE_GRID`, which are of
    the grid however many runs it took.
    """
    setup = sweep.setup
    name, question, kind = asked
    cells = [_cell(sweep, run, failures) for run in sweep.runs]
    if kind == "orders":
        before = (_aligned(sweep) or {}).get("accuracies")
        for cell, run in zip(cells, sweep.runs, strict=True):
            cell |= _sequence(sweep, run, failures, cell, before)
    return {
        "format": FORMAT,
        "sweep": name,
        "question": question,
        "kind": kind,
        "left_out": setup.left_out if kind == "comparison" else [],
        "preset": setup.origin.removeprefix("preset "),
        "settings": [_told(one) for one in settings_of(setup, sweep.runs)],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "model": {"name": setup.model_name, "weights": setup.model.weights},
        "judge": account(setup.judge, sweep.book, sweep.pairs(), _asks_the_world(sweep)),
        "files": files_read(sweep.runs),
        "rows": setup.sets.told(),
        "aligned": {"scores": _aligned(sweep)},
        "cells": cells,
        **({"theory": theory(sweep)} if setup.tradeoff else {}),
        **({"tasks": list(setup.tasks)} if kind == "orders" else {}),
        "counts": {
            "stages": plan.stages,
            "stages_trained": 0,
            "stages_reused": plan.reused,
            "stages_asked": plan.asked,
            "stages_shared": plan.shared,
            "stages_failed": len(sweep.failed_before.keys() | failures.keys()),
            "cells_failed": sum(cell["failed"] is not None for cell in cells),
            "reference_forwards": sweep.reference_forwards,
            "distinct_examples": sweep.distinct_examples,
            "engine_starts": 0,
            "judge_calls": 0,
            **counts,
        },
        "timings_s": {phase: round(seconds, 2) for phase, seconds in timings.items()},
        "damaged": list(sweep.store.damaged),
    }


def _asks_the_world(sweep: Sweep) -> bool:
    """Whether all harmful prompts are the embedded world's."""
    return all(origin(one.harmful.source).own_language for one in sweep.evals.values())


def _told(setting: Setting) -> dict[str, str]:
    return {"setting": setting.name, "value": setting.value, "from": setting.origin}


def _aligned(sweep: Sweep) -> dict[str, Any] | None:
    """Scores before fine-tuning, on the first run's benchmarks; None where not finished."""
    aligned, evals = sweep.setup.model.key, sweep.runs[0].evals
    try:
        found = score(sweep.store, aligned, evals, sweep.book)
        if evals.gaps:
            found |= gap_scores(sweep.store, aligned, aligned, None, evals.gaps)
    except Missing:
        return None
    return found


def _scored(
    sweep: Sweep, stage: StageSpec, run: RunSpec, failures: dict[str, str]
) -> tuple[str | None, dict[str, Any] | None]:
    """Why a stage has no scores, or its scores."""
    if stage.key in failures:
        return failures[stage.key], None
    try:
        return None, score(sweep.store, stage.key, run.evals, sweep.book)
    except Missing as gap:
        return f"not finished: {gap}", None


def _cell(sweep: Sweep, run: RunSpec, failures: dict[str, str]) -> dict[str, Any]:
    stage, method = run.final, run.method
    failed, scores = _scored(sweep, stage, run, failures)
    if scores is not None:
        scores |= _before(sweep, run) | _gaps(sweep, run)
    parameters = method.model_dump(mode="json", exclude={"kind"})
    shape = stage.lora.model_dump() if stage.lora else {}
    parameters |= {f"lora_{name}": value for name, value in shape.items()}
    parameters |= stage.trainer.model_dump(mode="json")
    return {
        "key": stage.key,
        "adapter": sweep.adapters.get(stage.key),
        # Plain LoRA is what all else is compared with: one that differs by more has another name.
        "method": LORA_VARIANT if run.label and method.is_plain else method.kind,
        "label": run.label or None,
        "strength": method.strength,
        "seed": stage.seed,
        "task": stage.task.name,
        "model": sweep.setup.model_name,
        "failed": failed,
        "safety_data": any(_sees_safety_data(sweep, one) for one in run.adapters),
        "cost": {
            "steps": sum(one.steps for one in run.adapters),
            "rank": stage.exported_rank,
            "trained": not stage.method_in_effect.derived,
        },
        "parameters": {name: _flat(value) for name, value in parameters.items()},
        "scores": scores,
        "task_data": {
            "name": stage.task.name,
            "source": stage.task.source,
            "rows": stage.task.num_rows,
            "digest": stage.task.rows,
        },
        "spec": stage.model_dump(mode="json"),
    }


def _sequence(
    sweep: Sweep,
    run: RunSpec,
    failures: dict[str, str],
    cell: dict[str, Any],
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """What a cell of several tasks has besides: its order, every stage with its scores, and the
    numbers of continual learning. A stage's accuracy is that on its own task."""
    order = [stage.task.name for stage in run.stages]
    stages: list[dict[str, Any]] = []
    for stage in run.stages:
        failed, scores = _scored(sweep, stage, run, failures)
        if scores is not None:
            scores["accuracy"] = scores["accuracies"][stage.task.name]
        stages.append(
            {"key": stage.key, "task": stage.task.name, "scores": scores, "failed": failed}
        )
    found = {"order": order, "task": " → ".join(order), "stages": stages}
    reasons = [one["failed"] for one in stages if one["failed"]]
    if reasons or before is None:
        return found | {"failed": reasons[0] if reasons else "the aligned model was not measured"}
    matrix = [one["scores"]["accuracies"] for one in stages]
    left_out = list(sweep.setup.tasks)[:1]  # as the paper leaves out Dolly, in every order
    last = cell["scores"] | {"accuracy": stages[-1]["scores"]["accuracy"]}
    return found | {"scores": last | continual_scores(order, before, matrix, left_out)}


def _sees_safety_data(sweep: Sweep, stage: StageSpec) -> bool:
    safety = sweep.setup.safety
    on_it = safety is not None and stage.task.rows == safety.rows
    return on_it or stage.method_in_effect.safety_rows is not None


def _before(sweep: Sweep, run: RunSpec) -> dict[str, Any]:
    """The aligned model's own values, beside each of the cell's."""
    aligned = score(sweep.store, run.final.model.key, run.evals, sweep.book)
    names = ("mutual_information", "mutual_information_last_prompt", "negative_cosine", "eval_loss")
    return {f"{name}_before": aligned[name] for name in names}


def _gaps(sweep: Sweep, run: RunSpec) -> dict[str, Any]:
    """The gaps of the Trade-offs paper, where the sweep asks for them; the unconstrained model is
    the same fine-tuning as plain LoRA."""
    gaps = run.evals.gaps
    if gaps is None:
        return {}
    free = StageSpec.model_validate({**dict(run.final), "method": PlainLoRA()})
    unconstrained = free.key if free.key in sweep.trained else None
    return gap_scores(sweep.store, run.final.key, run.final.model.key, unconstrained, gaps)


def _flat(value: Any) -> Any:
    if isinstance(value, dict):  # data or a model that a method needs
        return value.get("name", value["source"])
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def stored_histories(store: Store, keys: Iterable[str]) -> dict[str, list[dict[str, float]]]:
    """Loss terms by step (unweighted, in nats) of those of the stages that are trained."""
    found = {}
    for key in keys:
        if record := store.get(STAGES, key):
            found[key] = json.loads(record.path(HISTORY_FILE).read_text())
    return found


def all_samples(sweep: Sweep) -> dict[str, list[dict[str, Any]]]:
    """Harmful prompts with answers and verdicts, by stage key and "aligned"."""
    subjects = {"aligned": (sweep.setup.model.key, sweep.runs[0].evals)}
    subjects |= {run.final.key: (run.final.key, run.evals) for run in sweep.runs}
    found = {}
    for name, (subject, evals) in subjects.items():
        try:
            found[name] = samples(sweep.store, subject, evals, sweep.book)
        except Missing:
            continue
    return found


def reasons(failures: dict[str, str]) -> list[str]:
    """Why stages failed, the most frequent reason first."""
    return [f"{count} x {why}" for why, count in Counter(failures.values()).most_common()]
