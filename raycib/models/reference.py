"""What the aligned model makes of every example, computed once.

zref depends on nothing that a grid varies (not on lambda, not on the seed, not on the epoch), so
one pass over the distinct examples serves the whole grid, the estimate of I(Z;C) included. The
same holds for what methods read of each token.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from raycib.config import Feature, Layer, ModelSpec, Pooling, Tokens, digest
from raycib.data.chat import Encoded
from raycib.models import token_loss
from raycib.models.adapters import AdapterSlots
from raycib.models.decoder import hidden_states
from raycib.models.pooling import pool, token_states
from raycib.models.tensors import Batch, collate, to_device
from raycib.store import Record, Store
from raycib.store.kinds import FORWARDS, REFERENCES

TOKENS_AT_ONCE = 16384


@dataclass(frozen=True)
class ReferenceCache:
    """Readings of every example of one set of rows; float32.

    A reading of rows is (examples, dim). One of tokens is all examples' tokens one after the other,
    (tokens, dim) or (tokens,), on the CPU wherever the model is: it may be large.
    """

    tensors: dict[Feature, Tensor]
    starts: dict[Feature, Tensor] = field(default_factory=dict)
    """Of readings of tokens: where each example begins, and where the last one ends."""

    def rows(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "examples dim"]:
        """Row i is example i."""
        return self.tensors[pooling, layer]

    def tokens(self, feature: Feature, examples: Tensor) -> Float[Tensor, "tokens *dim"]:
        """All tokens of these examples, example after example."""
        starts, values = self.starts[feature], self.tensors[feature]
        parts = [values[starts[one] : starts[one + 1]] for one in examples.tolist()]
        return torch.cat(parts).to(examples.device)


def is_of_tokens(feature: Feature) -> bool:
    """Whether there is a value for each token, not for each row."""
    return feature[0] in get_args(Tokens)


def reference_key(model: ModelSpec, rows: str, max_length: int, feature: Feature) -> str:
    """What a reading depends on, hashed; `rows` is the fingerprint of the rows."""
    what, layer = feature
    return digest(
        {"reference": 1, "model": model.identity(), "rows": rows, "max_length": max_length,
         "pooling": what, "layer": layer}
    )  # fmt: skip


def load_cache(
    store: Store,
    model: ModelSpec,
    rows: str,
    max_length: int,
    features: Sequence[Feature],
    device: torch.device,
) -> ReferenceCache | None:
    """The bank as stored, or None where a reading of it is missing."""
    cache = ReferenceCache({})
    for feature in features:
        record = store.get(REFERENCES, reference_key(model, rows, max_length, feature))
        if record is None:
            return None
        found = load_file(record.path("reference.safetensors"))
        if is_of_tokens(feature):
            cache.tensors[feature], cache.starts[feature] = found["z"], found["starts"]
        else:
            cache.tensors[feature] = found["z"].to(device)
    return cache


def missing_readings(
    store: Store, model: ModelSpec, rows: str, max_length: int, features: Sequence[Feature]
) -> list[Feature]:
    """Those that the store does not have."""
    keys = {one: reference_key(model, rows, max_length, one) for one in features}
    return [one for one, key in keys.items() if store.get(REFERENCES, key) is None]


def compute_cache(
    store: Store,
    adapters: AdapterSlots,
    model: ModelSpec,
    data: Sequence[Encoded],
    rows: str,
    max_length: int,
    features: Sequence[Feature],
) -> int:
    """One forward pass over `data` without any adapter; stores every reading.

    Returns the number of examples that went through the model: `len(data)`.
    """
    device = next(adapters.model.parameters()).device
    order = sorted(range(len(data)), key=lambda i: -len(data[i]))
    found: dict[Feature, list[Tensor]] = {
        feature: [torch.empty(0)] * len(data) for feature in features
    }
    start = 0
    while start < len(order):
        # Longest first, so that a batch's first row tells its width.
        chosen = order[start : start + max(1, TOKENS_AT_ONCE // len(data[order[start]]))]
        batch = to_device(collate(data, chosen), device)
        with torch.no_grad(), adapters.disabled():
            hidden = hidden_states(adapters.model, batch.ids)
            for feature in features:
                values = read(adapters, getattr(hidden, feature[1]), batch, feature).cpu()
                sizes = _sizes(batch, feature) if is_of_tokens(feature) else [1] * len(chosen)
                for example, value in zip(chosen, values.split(sizes), strict=True):
                    found[feature][example] = value
        start += len(chosen)
    about = {
        "model": model.key, "rows": rows, "max_length": max_length, "examples": len(data),
        "readings": list(map(".".join, features)),
    }  # fmt: skip
    store.put(FORWARDS, uuid.uuid4().hex, lambda folder: None, about)
    for feature, parts in found.items():
        _put(store, reference_key(model, rows, max_length, feature), parts, feature)
    return len(data)


def read(
    adapters: AdapterSlots,
    hidden: Float[Tensor, "rows seq dim"],
    batch: Batch,
    feature: Feature,
) -> Float[Tensor, "values *dim"]:
    """A reading of a batch: a value for each row, or for each of its tokens, row after row."""
    match feature[0]:
        case "response_states" | "all_states" as which:
            return token_states(hidden, batch, which).float()
        case "response_nll":
            states = token_states(hidden, batch, "response_states")
            return token_loss(adapters.model, states, batch.labels[batch.labels >= 0])
        case pooling:
            return pool(hidden, batch, pooling)


def _sizes(batch: Batch, feature: Feature) -> list[int]:
    mask = batch.feature if feature[0] == "all_states" else batch.predicting
    return mask.sum(dim=1).tolist()


def _put(store: Store, key: str, parts: Sequence[Tensor], feature: Feature) -> Record:
    values = torch.cat(list(parts)).contiguous()
    if not torch.isfinite(values).all():
        raise ValueError(f"the aligned model gives non-finite values ({', '.join(feature)})")
    tensors = {"z": values}
    if is_of_tokens(feature):
        ends = torch.tensor([len(part) for part in parts]).cumsum(dim=0)
        tensors["starts"] = torch.cat([torch.zeros(1, dtype=torch.long), ends])

    def write(folder: Path) -> None:
        save_file(tensors, folder / "reference.safetensors")

    what, layer = feature
    return store.put(
        REFERENCES, key, write, {"pooling": what, "layer": layer, "examples": len(parts)}
    )
