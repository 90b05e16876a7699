"""The aligned model's surroundings, where the accelerator is: what Theorems 3 and 4 of the
Trade-offs paper need of it, and how long answers are in its tokens."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raycib.adapters import LaneAdapters, LoRAShape
from raycib.data.chat import Encoded
from raycib.data.lengths import examples_of
from raycib.evals.landscape import lipschitz, smoothness
from raycib.models import load_model, load_tokenizer
from raycib.orchestration.theory import LANDSCAPE_FILE, tokens_key
from raycib.orchestration.worker import device_of
from raycib.spec import LandscapeSpec, ModelSpec, TaskSpec
from raycib.store import Store
from raycib.store.kinds import ANSWER_TOKENS, LANDSCAPE


def survey(
    store: Store,
    model: ModelSpec,
    landscapes: Sequence[LandscapeSpec],
    rows: Sequence[TaskSpec],
    gpus: float,
) -> None:
    """Compute what the store lacks of `landscapes`, and the mean answer tokens of `rows`."""
    tokenizer = load_tokenizer(model.source, model.template)
    for task in rows:
        if store.get(ANSWER_TOKENS, tokens_key(model, task)) is None:
            encoded = examples_of(tokenizer, task)
            mean = sum(len(one.response) for one in encoded) / len(encoded)
            about = {"rows": task.model_dump(mode="json"), "mean": mean}
            store.put(ANSWER_TOKENS, tokens_key(model, task), lambda folder: None, about)
    for spec in landscapes:
        if store.get(LANDSCAPE, spec.key) is None:
            shape = LoRAShape(spec.lora.rank, spec.lora.alpha, spec.lora.targets)
            whole = load_model(model, device_of(gpus))
            adapters = LaneAdapters(whole, [shape] * len(spec.radii))
            data = examples_of(tokenizer, spec.rows)
            found = _look(adapters, data, spec)
            about = {"spec": spec.model_dump(mode="json")}
            store.put(LANDSCAPE, spec.key, _write(found), about)


def _look(adapters: LaneAdapters, data: Sequence[Encoded], spec: LandscapeSpec) -> Any:
    if spec.what == "lipschitz":
        return [one._asdict() for one in lipschitz(adapters, data, spec.radii)]
    found = smoothness(adapters, data, max(spec.radii))
    return {**found._asdict(), "n": len(data)}


def _write(found: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / LANDSCAPE_FILE).write_text(json.dumps(found))

    return write
