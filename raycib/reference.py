"""Reference representations: what the aligned model makes of every example, computed once.

zref depends on nothing that a grid varies (not on lambda, not on the seed, not on the epoch), so
one pass over the distinct examples serves the whole grid, the estimate of I(Z;C) included.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from raycib.adapters import LaneAdapters
from raycib.data.chat import Encoded
from raycib.models import hidden_states
from raycib.pooling import pool
from raycib.spec import Layer, ModelSpec, Pooling, digest
from raycib.store import Record, Store
from raycib.tensors import collate, to_device

KIND = "references"
TOKENS_AT_ONCE = 16384


@dataclass(frozen=True)
class ReferenceBank:
    """zref of every example of one set of rows, by pooling and layer; float32."""

    tensors: dict[str, Float[Tensor, "examples dim"]]

    def rows(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "examples dim"]:
        """Row i is example i."""
        return self.tensors[f"{pooling}.{layer}"]


def reference_key(
    model: ModelSpec, rows: str, max_length: int, reading: tuple[Pooling, Layer]
) -> str:
    """What zref depends on, hashed; `rows` is the fingerprint of the rows."""
    pooling, layer = reading
    return digest(
        {"reference": 1, "model": model.identity(), "rows": rows, "max_length": max_length,
         "pooling": pooling, "layer": layer}
    )  # fmt: skip


def load_bank(
    store: Store,
    model: ModelSpec,
    rows: str,
    max_length: int,
    readings: Sequence[tuple[Pooling, Layer]],
    device: torch.device,
) -> ReferenceBank | None:
    """The bank as stored, or None where a reading of it is missing."""
    found: dict[str, Tensor] = {}
    for reading in readings:
        record = store.get(KIND, reference_key(model, rows, max_length, reading))
        if record is None:
            return None
        found[".".join(reading)] = load_file(record.path("reference.safetensors"))["z"].to(device)
    return ReferenceBank(found)


def compute_bank(
    store: Store,
    adapters: LaneAdapters,
    model: ModelSpec,
    data: Sequence[Encoded],
    rows: str,
    max_length: int,
    readings: Sequence[tuple[Pooling, Layer]],
) -> int:
    """One forward pass over `data` without any adapter; stores every reading.

    Returns the number of examples that went through the model: `len(data)`.
    """
    device = next(adapters.model.parameters()).device
    order = sorted(range(len(data)), key=lambda i: -len(data[i]))
    banks: dict[tuple[Pooling, Layer], Tensor] = {}
    start = 0
    while start < len(order):
        # Longest first, so that a batch's first row tells its width.
        chosen = order[start : start + max(1, TOKENS_AT_ONCE // len(data[order[start]]))]
        batch = to_device(collate(data, chosen), device)
        with torch.no_grad(), adapters.disabled():
            hidden = hidden_states(adapters.model, batch.ids)
        for pooling, layer in readings:
            pooled = pool(getattr(hidden, layer), batch, pooling).cpu()
            bank = banks.setdefault((pooling, layer), torch.empty(len(data), pooled.shape[1]))
            bank[torch.tensor(chosen)] = pooled
        start += len(chosen)
    about = {"rows": rows, "examples": len(data), "readings": list(map(".".join, readings))}
    store.put("forwards", uuid.uuid4().hex, lambda folder: None, about)
    for reading, bank in banks.items():
        _put(store, reference_key(model, rows, max_length, reading), bank, reading)
    return len(data)


def _put(store: Store, key: str, bank: Tensor, reading: tuple[Pooling, Layer]) -> Record:
    if not torch.isfinite(bank).all():
        raise ValueError(f"the aligned model gives non-finite representations ({reading})")

    def write(folder: Path) -> None:
        save_file({"z": bank.contiguous()}, folder / "reference.safetensors")

    pooling, layer = reading
    return store.put(KIND, key, write, {"pooling": pooling, "layer": layer, "examples": len(bank)})
