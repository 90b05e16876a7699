"""Models in memory are measured: on held-out rows, by a study's own measures, by likelihoods."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pydantic import BaseModel

from raycib.config import EvalSpec, Feature, ModelSpec, RowsSpec
from raycib.data.chat import Encoded
from raycib.evals.representation import measure
from raycib.evals.scores import MEASURES_FILE
from raycib.models import load_tokenizer
from raycib.models.adapters import AdapterSlots
from raycib.models.reference import ReferenceCache
from raycib.store import Store
from raycib.store.kinds import MEASURES
from raycib.training.group import Loaded, ensure_cache


def measure_slots(
    loaded: Loaded, store: Store, model: ModelSpec, model_ids: dict[int, str], evals: EvalSpec
) -> None:
    """Measure slots (by subject) on held-out rows and store what is new."""

    def ensure(
        kind: str,
        file: str,
        key_of: Callable[[str], str],
        about: BaseModel,
        values_of: Callable[[list[int]], Mapping[int, BaseModel]],
    ) -> None:
        todo = {n: one for n, one in model_ids.items() if store.get(kind, key_of(one)) is None}
        for slot, values in values_of(list(todo)).items() if todo else ():
            text, told = values.model_dump_json(indent=1), about.model_dump(mode="json")
            made = {"subject": todo[slot], "rows": told}
            store.put_text(kind, key_of(todo[slot]), file, text, made)

    def held_out(slots: list[int]) -> Mapping[int, BaseModel]:
        cache = ensure_cache(loaded, store, model, evals.held_out, evals.features)
        return measure(loaded.adapters, slots, loaded.encode(evals.held_out), cache, evals)

    ensure(MEASURES, MEASURES_FILE, evals.measures_key, evals.held_out, held_out)
    for one in evals.measures:
        values_of = partial(one.measure, Models(loaded, store, model))
        ensure(one.folder, one.file, one.stored_key, one, values_of)
    _score_likelihoods(loaded, store, model, model_ids, evals)


def _score_likelihoods(
    loaded: Loaded, store: Store, model: ModelSpec, model_ids: dict[int, str], evals: EvalSpec
) -> None:
    """The benchmarks of lm-eval that ask for the likelihood of given texts."""
    for spec in (one for one in evals.benchmarks if not one.in_words):
        from raycib.evals.harness.models import AdapterLM
        from raycib.evals.harness.run import ensure_scores

        tokenizer = load_tokenizer(model.source, model.template)
        for slot, model_id in model_ids.items():
            asked = partial(AdapterLM, loaded.adapters, tokenizer, slot)
            ensure_scores(store, spec, model_id, evals.engine, asked)


@dataclass(frozen=True)
class Models:
    """What a study's measure sees of a group in memory (`raycib.config.measure.InMemory`)."""

    loaded: Loaded
    store: Store
    model: ModelSpec

    @property
    def adapters(self) -> AdapterSlots:
        """One slot a model."""
        return self.loaded.adapters

    def encode(self, rows: RowsSpec) -> list[Encoded]:
        """Rows as tokens."""
        return self.loaded.encode(rows)

    def reference(self, rows: RowsSpec, features: tuple[Feature, ...]) -> ReferenceCache:
        """The aligned model's readings of rows, from the store or computed."""
        return ensure_cache(self.loaded, self.store, self.model, rows, features)
