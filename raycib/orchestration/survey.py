"""The aligned model's surroundings, where the accelerator is: what Theorems 3 and 4 of the
Trade-offs paper need of it, and how long answers are in its tokens."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raycib.adapters import LaneAdapters, LoRAShape
from raycib.evals.landscape import lipschitz, smoothness
from raycib.models import load_model, load_tokenizer
from raycib.orchestration.theory import LANDSCAPE, LANDSCAPE_FILE, TOKENS, tokens_key
from raycib.orchestration.worker import device_of
from raycib.spec import LandscapeSpec, ModelSpec, TaskSpec
from raycib.store import Store
from raycib.training.pack import Loaded


def survey(
    store: Store,
    model: ModelSpec,
    landscapes: Sequence[LandscapeSpec],
    rows: Sequence[TaskSpec],
    gpus: float,
) -> None:
    """Compute what the store lacks of `landscapes`, and the mean answer tokens of `rows`."""
    unknown = [spec for spec in landscapes if store.get(LANDSCAPE, spec.key) is None]
    uncounted = [one for one in rows if store.get(TOKENS, tokens_key(model, one)) is None]
    if not unknown and not uncounted:
        return
    shapes = [
        LoRAShape(spec.lora.rank, spec.lora.alpha, spec.lora.targets)
        for spec in unknown[:1]
        for _ in spec.radii
    ]
    adapters = LaneAdapters(load_model(model, device_of(gpus)), shapes)
    loaded = Loaded(adapters, load_tokenizer(model.source, model.template), device_of(gpus))
    for spec in unknown:
        found = _look(loaded, spec)
        about = {"spec": spec.model_dump(mode="json")}
        store.put(LANDSCAPE, spec.key, _write(found), about)
    for task in uncounted:
        lengths = [len(one.response) for one in loaded.encode(task)]
        about = {"rows": task.model_dump(mode="json"), "mean": sum(lengths) / len(lengths)}
        store.put(TOKENS, tokens_key(model, task), lambda folder: None, about)


def _look(loaded: Loaded, spec: LandscapeSpec) -> Any:
    data = loaded.encode(spec.rows)
    if spec.what == "lipschitz":
        return [one._asdict() for one in lipschitz(loaded.adapters, data, spec.radii)]
    found = smoothness(loaded.adapters, data, max(spec.radii))
    return {**found._asdict(), "n": len(data)}


def _write(found: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / LANDSCAPE_FILE).write_text(json.dumps(found))

    return write
