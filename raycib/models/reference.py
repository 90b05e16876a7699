"""What the aligned model makes of every example, computed once.

zref depends on nothing that a grid varies (not on lambda, not on the seed, not on the epoch), so
one pass over the distinct examples serves the whole grid, the estimate of I(Z;C) included. The
same holds for what methods read of each token.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor

from raycib.config import Feature, Layer, ModelSpec, Pooling, Tokens, digest
from raycib.data.chat import Encoded
from raycib.models.adapters import AdapterSlots
from raycib.models.decoder import hidden_states
from raycib.models.head import token_loss
from raycib.models.pooling import pool, token_states
from raycib.models.reading_file import ReadingFile
from raycib.models.tensors import Batch, collate, sent
from raycib.store import Record, Store
from raycib.store.kinds import FORWARDS, REFERENCES

FILE = "reference.safetensors"
TOKENS_AT_ONCE = 16384


@dataclass(frozen=True)
class ReferenceCache:
    """Readings of every example of one set of rows.

    A reading of rows is (examples, dim), in float32. One of tokens is all examples' tokens one
    after the other, (tokens, dim) or (tokens,), in a file that is mapped into memory, in the dtype
    that it is kept in: it may be larger than memory.
    """

    tensors: dict[Feature, Tensor]
    starts: dict[Feature, Tensor] = field(default_factory=dict)
    """Of readings of tokens: where each example begins, and where the last one ends."""

    def rows(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "examples dim"]:
        """Row i is example i."""
        return self.tensors[pooling, layer]

    def tokens(
        self, feature: Feature, examples: Tensor, device: torch.device
    ) -> Float[Tensor, "tokens *dim"]:
        """All tokens of these examples, of the host, example after example: on a device."""
        starts, values = self.starts[feature], self.tensors[feature]
        parts = [values[starts[one] : starts[one + 1]] for one in examples.tolist()]
        return sent(torch.cat(parts), device).float()


def is_of_tokens(feature: Feature) -> bool:
    """Whether there is a value for each token, not for each row."""
    return feature[0] in get_args(Tokens)


def stored_dtype(model: ModelSpec, feature: Feature) -> str:
    """States of tokens, of which there are many, are kept as the model makes them: nothing of them
    is lost. All else is float32."""
    return model.dtype if feature[0] in ("response_states", "all_states") else "float32"


def reference_key(
    model: ModelSpec, rows: str, max_length: int, feature: Feature, dtype: str | None = None
) -> str:
    """What a reading depends on, hashed; `rows` is the fingerprint of the rows, `dtype` what its
    values are kept in where that is not as usual."""
    what, layer = feature
    kept = dtype or stored_dtype(model, feature)
    return digest(
        {"reference": 1, "model": model.identity(), "rows": rows, "max_length": max_length,
         "pooling": what, "layer": layer} | ({} if kept == "float32" else {"dtype": kept})
    )  # fmt: skip


def _stored(
    store: Store, model: ModelSpec, rows: str, max_length: int, feature: Feature
) -> Record | None:
    """A reading, in float32 (which holds the same values) where it is kept so."""
    keys = (reference_key(model, rows, max_length, feature, one) for one in (None, "float32"))
    return next(filter(None, (store.get(REFERENCES, key) for key in keys)), None)


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
        record = _stored(store, model, rows, max_length, feature)
        if record is None:
            return None
        found = load_file(record.path(FILE))  # mapped: read from the disk where it is used
        if is_of_tokens(feature):
            cache.tensors[feature], cache.starts[feature] = found["z"], found["starts"]
        else:
            cache.tensors[feature] = found["z"].to(device)
    return cache


def missing_readings(
    store: Store, model: ModelSpec, rows: str, max_length: int, features: Sequence[Feature]
) -> list[Feature]:
    """Those that the store does not have."""
    return [one for one in features if _stored(store, model, rows, max_length, one) is None]


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
    order = sorted(range(len(data)), key=lambda i: -len(data[i]))
    dim = adapters.model.config.hidden_size
    with store.scratch() as folder, ExitStack() as stack:
        files = {
            feature: stack.enter_context(
                ReadingFile(
                    folder / ".".join(feature),
                    _sizes(data, feature),
                    () if feature[0] == "response_nll" else (dim,),
                    getattr(torch, stored_dtype(model, feature)),
                    starts=is_of_tokens(feature),
                )
            )
            for feature in features
        }
        start = 0
        while start < len(order):
            # Longest first, so that a batch's first row tells its width.
            chosen = order[start : start + max(1, TOKENS_AT_ONCE // len(data[order[start]]))]
            _read_into(files, adapters, collate(data, chosen), data)
            start += len(chosen)
        stack.close()
        about = {
            "model": model.key, "rows": rows, "max_length": max_length, "examples": len(data),
            "readings": list(map(".".join, features)),
        }  # fmt: skip
        store.put(FORWARDS, uuid.uuid4().hex, lambda folder: None, about)
        for feature in features:

            def move(to: Path, feature: Feature = feature) -> None:
                os.rename(folder / ".".join(feature), to / FILE)

            what, layer = feature
            key = reference_key(model, rows, max_length, feature)
            store.put(
                REFERENCES, key, move, {"pooling": what, "layer": layer, "examples": len(data)}
            )
    return len(data)


@torch.no_grad()
def _read_into(
    files: Mapping[Feature, ReadingFile],
    adapters: AdapterSlots,
    batch: Batch,
    data: Sequence[Encoded],
) -> None:
    """All readings of a batch, from one pass."""
    examples = batch.examples.tolist()
    chosen = [data[example] for example in examples]
    with adapters.disabled():
        hidden = hidden_states(adapters.model, sent(batch.ids, adapters.model.device))
        for feature, file in files.items():
            values = read(adapters, getattr(hidden, feature[1]), batch, feature).cpu()
            if not torch.isfinite(values).all():
                name = ", ".join(feature)
                raise ValueError(f"the aligned model gives non-finite values ({name})")
            parts = values.split(_sizes(chosen, feature))
            for example, value in zip(examples, parts, strict=True):
                file.write(example, value)


def read(
    adapters: AdapterSlots,
    hidden: Float[Tensor, "*places dim"],
    batch: Batch,
    feature: Feature,
    held: Bool[Tensor, "rows seq"] | None = None,
) -> Float[Tensor, "values *dim"]:
    """A reading of a batch, of states as `pool` has them: a value for each row, or for each of its
    tokens, row after row."""
    match feature[0]:
        case "response_states" | "all_states" as which:
            return token_states(hidden, batch, which, held).float()
        case "response_nll":
            states = token_states(hidden, batch, "response_states", held)
            labels = batch.labels[batch.labels >= 0]
            return token_loss(adapters.model, states, sent(labels, states.device))
        case pooling:
            return pool(hidden, batch, pooling, held)


def _sizes(data: Sequence[Encoded], feature: Feature) -> list[int]:
    """Values of a reading that each example has."""
    match feature[0]:
        case "all_states":
            return [len(one) - 1 for one in data]
        case "response_states" | "response_nll":
            return [len(one.response) for one in data]
        case _:
            return [1] * len(data)
