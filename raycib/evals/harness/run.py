"""One benchmark on one model: asked, scored by lm-eval, and put into the store."""

import json
from collections.abc import Callable
from typing import Any

from raycib.config.lm_eval import LmEvalSpec
from raycib.errors import UserError
from raycib.evals.harness.tasks import BOOTSTRAPS, as_its_command, asked_of, load
from raycib.evals.harness_scores import FILE
from raycib.store import Store
from raycib.store.kinds import BENCHMARKS


def ensure_scores(
    store: Store, spec: LmEvalSpec, model_id: str, engine: str, model: Callable[[], Any]
) -> bool:
    """Have the scores of a benchmark in the store; whether they are new. `model` makes what lm-eval
    asks, once it is needed."""
    key = spec.stored_key(model_id, engine)
    if store.get(BENCHMARKS, key) is not None:
        return False
    text = json.dumps(scores_of(spec, model), indent=1)
    about = {"subject": model_id, "benchmark": spec.model_dump(mode="json")}
    about |= {"engine": engine} if spec.in_words else {}
    store.put_text(BENCHMARKS, key, FILE, text, about)
    return True


def scores_of(spec: LmEvalSpec, model: Callable[[], Any]) -> list[dict[str, Any]]:
    """What lm-eval says of a model, which `model` makes (an `lm_eval.api.model.LM`).

    One entry for each task or group, metric and filter, in its order, with its standard error (None
    where it has none), the number of its documents, and whether it is a part of a group that has a
    score of its own. A group's entries come before its tasks'.

    Raises `UserError` where the task is not what it was when the sweep was planned.
    """
    from lm_eval import evaluate

    with as_its_command(spec.folder):
        found = load(spec.source, spec.shots)
        told: Any = evaluate(
            model(),
            found,
            limit=spec.limit,
            log_samples=False,
            bootstrap_iters=BOOTSTRAPS,
            apply_chat_template=spec.chat,
            fewshot_as_multiturn=spec.chat,
        )
    if asked_of(found) != spec.asked:
        raise UserError(
            f"--evals {spec.name}: its data or its code are not those that the sweep was planned "
            "with; run the same command again"
        )
    return entries_of(found, told["results"])


def entries_of(found: Any, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of loaded tasks' and groups' results, as `scores_of` gives them."""
    every = {
        name: _entries(name, results.get(name, {})) for name in (*found["groups"], *found["tasks"])
    }
    scored = [group for name, group in found["groups"].items() if every[name]]
    parts = {task.task_name for group in scored for task in group.get_all_tasks()}
    parts |= {part.name for group in scored for part in group.get_all_groups()}
    return [
        one | {"group": name in found["groups"], "part": name in parts}
        for name, entries in every.items()
        for one in entries
    ]


def _entries(name: str, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    entries = []
    for place, value in metrics.items():
        metric, comma, filtered = place.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = metrics.get(f"{metric}_stderr,{filtered}")
        entries.append(
            {
                "task": name,
                "metric": metric,
                "filter": filtered,
                "value": float(value),
                "stderr": float(error) if isinstance(error, int | float) else None,
                "n": int(metrics["sample_len"]),
            }
        )
    return entries
