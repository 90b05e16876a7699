"""What Theorems 3 and 4 of the Trade-offs paper need of the aligned model, computed once: the
loss landscape around it, and how long answers are in its tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from raycib.config import LoRASpec, ModelSpec, RowsSpec, Spec, TaskSpec, digest
from raycib.store import Store
from raycib.store.kinds import ANSWER_TOKENS, LANDSCAPE

RADII = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Distances from the aligned model, as Frobenius norms of the update."""
LANDSCAPE_ROWS = 64
"""Rows that its loss is a mean over."""


class LandscapeSpec(Spec):
    """Constants of the Trade-offs paper's assumptions, of a model's loss on some rows."""

    key_name: ClassVar[str] = "LandscapeSpec"
    folder: ClassVar[str] = LANDSCAPE
    file: ClassVar[str] = "landscape.json"

    what: Literal["lipschitz", "smoothness"]
    """Theorem 3's local Lipschitz constant, or Theorem 4's gradient norm and smoothness."""
    model: ModelSpec
    rows: RowsSpec
    lora: LoRASpec
    """The updates that are tried: adapters of this shape."""
    radii: tuple[float, ...] = RADII

    @property
    def stored_key(self) -> str:
        """The spec's own."""
        return self.key

    def run(self, store: Store, device: Any) -> None:
        """Compute and store it."""
        from raycib.data.lengths import examples_of
        from raycib.models import load_model, load_tokenizer
        from raycib.models.adapters import AdapterSlots, LoRAShape

        shape = LoRAShape(self.lora.rank, self.lora.alpha, self.lora.targets)
        whole = load_model(self.model, device)
        adapters = AdapterSlots(whole, [shape] * len(self.radii))
        tokenizer = load_tokenizer(self.model.source, self.model.template)
        found = self._look(adapters, examples_of(tokenizer, self.rows))
        about = {"spec": self.model_dump(mode="json")}
        store.put_text(self.folder, self.key, self.file, json.dumps(found), about)

    def _look(self, adapters: Any, data: Sequence[Any]) -> Any:
        from raycib.studies.tradeoff.landscape import lipschitz, smoothness

        if self.what == "lipschitz":
            return [one.plain() for one in lipschitz(adapters, data, self.radii)]
        return smoothness(adapters, data, max(self.radii)).plain()

    def found(self, store: Store) -> Any:
        """What is stored, as plain JSON, or None."""
        record = store.get(self.folder, self.key, only=(self.file,))
        return record.value(self.file) if record else None


@dataclass(frozen=True)
class AnswerTokens:
    """The mean length of the answers in some rows, as a model's tokenizer cuts them."""

    folder: ClassVar[str] = ANSWER_TOKENS

    model: ModelSpec
    rows: TaskSpec

    @property
    def stored_key(self) -> str:
        """By what decides it: the tokenizer and the template that closes an answer, not the
        weights."""
        what = {"tokenizer": self.model.tokenizer, "rows": self.rows.rows}
        if self.model.template != "own":  # which no key named
            what["template"] = self.model.template
        return digest({"answer tokens": 1, "max_length": self.rows.max_length, **what})

    def run(self, store: Store, device: Any) -> None:
        """Count and store it."""
        from raycib.data.lengths import examples_of
        from raycib.models import load_tokenizer

        tokenizer = load_tokenizer(self.model.source, self.model.template)
        encoded = examples_of(tokenizer, self.rows)
        mean = sum(len(one.response) for one in encoded) / len(encoded)
        about = {"rows": self.rows.model_dump(mode="json"), "mean": mean}
        store.put(self.folder, self.stored_key, lambda folder: None, about)

    def found(self, store: Store) -> float | None:
        """The mean that is stored, or None."""
        record = store.get(self.folder, self.stored_key)
        return record.about["mean"] if record else None
