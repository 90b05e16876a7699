"""An engine that answers with something else than what was trained is found before it answers: it
gives held-out answers other losses."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import tiny
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from raycib.config import EvalSpec, PlainLoRA, StageSpec
from raycib.data.chat import Encoded
from raycib.data.lengths import examples_of
from raycib.errors import UserError
from raycib.evals.answers import answers_key
from raycib.evals.engine import Engine
from raycib.evals.engine_losses import ENOUGH_TOKENS, MOST_ROWS, engine_losses
from raycib.evals.in_process import InProcessGenerator
from raycib.models import load_model
from raycib.models.device import device_of
from raycib.report.measured import measured
from raycib.results import EngineLosses, Results
from raycib.runtime.answering import Answering, with_transformers
from raycib.runtime.measuring import measure_slots
from raycib.store import Store
from raycib.store.kinds import GENERATIONS, MEASURES, STAGES
from raycib.training.group import load


class Trained:
    """A stage on the tiny model, trained, and measured as the base is."""

    def __init__(self, folder: Path) -> None:
        self.stage: StageSpec = tiny.make_stage(folder, method=PlainLoRA())
        self.evals = tiny.make_evals(folder, 24).model_copy(update={"engine": "transformers"})
        self.root = folder / "store"
        self.model = self.stage.model
        store = Store(self.root)
        tiny.train_chain((self.stage,), store)
        record = store.get(STAGES, self.stage.key)
        assert record and self.stage.lora
        for key in (self.model.key, self.stage.key):
            loaded = load([self.stage], device_of(0))
            if key == self.stage.key:
                loaded.adapters.freeze(0, record.folder)
            measure_slots(loaded, store, self.model, {0: key}, self.evals)
        self.targets = [self.stage.lora.targets]

    @property
    def asked(self) -> dict[str, Sequence[EvalSpec]]:
        """Both models."""
        return {self.model.key: [self.evals], self.stage.key: [self.evals]}

    def engine(self) -> tuple[Any, Engine]:
        """The one that trained it."""
        return with_transformers(self.model, torch.device("cpu"), 64, self.targets)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def store(trained: Trained, tmp_path: Path) -> Store:
    return Store(shutil.copytree(trained.root, tmp_path / "store"))


def told(store: Store, trained: Trained) -> EngineLosses | None:
    models = trained.model.key, trained.stage.key
    return engine_losses(store, trained.model, [(one, trained.evals) for one in models])


def answered(store: Store, trained: Trained) -> list[bool]:
    keys = [answers_key(one, trained.evals.harmful, "transformers") for one in trained.asked]
    return [store.get(GENERATIONS, key) is not None for key in keys]


def test_what_was_trained_answers(store: Store, trained: Trained) -> None:
    """Losses differ by rounding, which is far below one ten thousandth in float32; the adapter's
    are others than the base's, or the claim would be about nothing."""
    assert told(store, trained) is None
    assert Answering(store, trained.model, *trained.engine()).answer(trained.asked) == 2 * 24
    found = told(store, trained)
    assert found and (found.models, found.of) == (2, 2)
    assert found.mean_difference_nats <= found.largest_difference_nats < 1e-5
    losses = [store.get(MEASURES, trained.evals.measures_key(one)) for one in trained.asked]
    base, own = (one.value("measures.json")["eval_loss"] for one in losses if one)
    assert base - own > 0.05
    results = Results(sweep="one", cells=[], engine_losses=found)
    parts = {part.title: dict(part.items) for part in measured(results)}
    assert parts["The engine's losses beside those that training measured"]["models"] == "2"


class WithoutAdapters:
    """An engine that answers as the base does, whatever adapter it is given."""

    name, max_model_len = "vllm", 64

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def losses(self, rows: Sequence[tuple[Encoded, Path | None]]) -> list[float]:
        return self._engine.losses([(row, None) for row, _ in rows])


def test_an_engine_that_leaves_an_adapter_out_is_refused_before_it_answers(
    store: Store, trained: Trained
) -> None:
    tokenizer, engine = trained.engine()
    answering = Answering(store, trained.model, tokenizer, WithoutAdapters(engine))  # type: ignore[arg-type]
    short = trained.stage.key[:12]
    says = rf"under the adapter of stage {short} vllm gives .* nats a token .*: give --local"
    for _ in range(2):  # the second reads what the first stored
        with pytest.raises(UserError, match=says):
            answering.answer({trained.stage.key: [trained.evals]})
    assert answered(store, trained) == [False, False]


def test_an_engine_that_computes_the_base_otherwise_is_refused(
    store: Store, trained: Trained
) -> None:
    """The same weights, and another constant in the norms than config.json has. An untrained
    base says much the same; the adapter on it does not."""
    other = load_model(trained.model, device_of(0))
    for part in other.modules():
        if isinstance(part, LlamaRMSNorm):
            part.variance_epsilon = 1.0
    tokenizer, _ = trained.engine()
    engine = InProcessGenerator(other, tokenizer, max_model_len=64, targets=trained.targets)
    with pytest.raises(UserError, match=r"under the .*transformers gives .*as another model$"):
        Answering(store, trained.model, tokenizer, engine).answer(trained.asked)


def put(store: Store, trained: Trained, losses: dict[int, float]) -> None:
    """As if an engine had found these, by row, of the trained model."""

    class Says(WithoutAdapters):
        name = "transformers"

        def losses(self, rows: Sequence[tuple[Encoded, Path | None]]) -> list[float]:
            return [losses[place] for place in range(len(rows))]

        def answer(self, requests: Sequence[Any]) -> list[Any]:
            raise AssertionError("after its losses")

    tokenizer, engine = trained.engine()
    says: Any = Says(engine)
    Answering(store, trained.model, tokenizer, says).answer({trained.stage.key: [trained.evals]})


def rows_of_stage(store: Store, trained: Trained) -> list[float]:
    record = store.get(MEASURES, trained.evals.measures_key(trained.stage.key))
    assert record
    return record.value("measures.json")["row_losses"]


def test_the_difference_is_a_mean_over_rows_without_signs(store: Store, trained: Trained) -> None:
    """.004 in turn up and down: .004. A loss of x nats may differ by a hundredth: one row that is
    .16 x apart is .02 x of eight."""
    rows = rows_of_stage(store, trained)[:MOST_ROWS]
    wrong = {place: loss + 0.004 * (-1) ** place for place, loss in enumerate(rows)}
    with pytest.raises(AssertionError, match="after its losses"):
        put(store, trained, wrong)
    found = told(store, trained)
    assert found and (found.models, found.of) == (1, 2)
    assert found.largest_difference_nats == pytest.approx(0.004, abs=1e-9)
    again = Store(shutil.copytree(trained.root, Path(str(store.root) + "2")))
    x = mean(rows)
    assert x > 1
    says = rf"that are {x / 50:.3g} nats a token .*\({x / 100:.3g} are allowed in float32\)"
    with pytest.raises(UserError, match=says):
        put(again, trained, dict(enumerate(rows)) | {0: rows[0] + 0.16 * x})


def test_losses_that_are_no_numbers_are_refused(store: Store, trained: Trained) -> None:
    rows = rows_of_stage(store, trained)
    with pytest.raises(UserError, match="are inf nats a token"):
        put(store, trained, dict(enumerate(rows)) | {3: math.nan})


@pytest.mark.parametrize(("apart", "refused"), [(0.15, False), (0.25, True)])
def test_a_large_loss_may_differ_by_its_share(
    store: Store, trained: Trained, tmp_path: Path, apart: float, refused: bool
) -> None:
    """Of losses of 20 nats a hundredth is .2."""
    key, other = trained.evals.measures_key(trained.stage.key), Store(tmp_path / "other")
    shutil.copytree(tmp_path / "store" / STAGES, tmp_path / "other" / STAGES)
    other.put_text(MEASURES, key, "measures.json", json.dumps({"row_losses": [20.0] * 24}), {})
    with pytest.raises(UserError if refused else AssertionError):
        put(other, trained, dict.fromkeys(range(24), 20 + apart))


def test_few_rows_are_read_and_none_that_is_too_long(trained: Trained, store: Store) -> None:
    """The first eight, which have fewer than 200 tokens of answers together; in an engine with
    room for 12 tokens the first eight of 11 at most, and in one for 2 nothing is compared."""
    seen: list[list[Encoded]] = []

    class Sees(WithoutAdapters):
        def losses(self, rows: Sequence[tuple[Encoded, Path | None]]) -> list[float]:
            seen.append([row for row, _ in rows])
            raise KeyError

    for room in (64, 12):
        tokenizer, engine = trained.engine()
        sees: Any = Sees(engine)
        sees.max_model_len = room
        with pytest.raises(KeyError):
            Answering(store, trained.model, tokenizer, sees).answer(trained.asked)
    whole = examples_of(tokenizer, trained.evals.held_out)
    assert seen[0] == whole[:MOST_ROWS] * 2
    assert sum(len(row.response) for row in whole[:MOST_ROWS]) < ENOUGH_TOKENS
    assert seen[1] == [row for row in whole if len(row) < 12][:MOST_ROWS] * 2 != seen[0]
    sees.max_model_len = 2
    with pytest.raises(AttributeError, match="answer"):  # it went on
        Answering(store, trained.model, tokenizer, sees).answer(trained.asked)
    assert told(store, trained) is None


def test_models_that_answer_together_answer_each_its_own(
    store: Store, trained: Trained, tmp_path: Path
) -> None:
    """Models of two tasks in one lot: 24 rows and 6. What is asked in the middle of a training is
    harmful prompts alone, which are among them."""
    other = tiny.make_evals(tmp_path, 6).model_copy(update={"engine": "transformers"})
    asked = {
        trained.model.key: [trained.evals],
        trained.stage.key: [other, other.at_points()],
    }
    assert Answering(store, trained.model, *trained.engine()).answer(asked) == 24 + 6
    for model_id, yes, no in (
        (trained.model.key, trained.evals, other),
        (trained.stage.key, other, trained.evals),
    ):
        keys = [answers_key(model_id, one.held_out, "transformers") for one in (yes, no)]
        assert [store.get(GENERATIONS, key) is not None for key in keys] == [True, False]


def test_what_training_did_not_measure_is_not_compared(store: Store, trained: Trained) -> None:
    shutil.rmtree(Path(str(store.root)) / MEASURES)
    assert Answering(store, trained.model, *trained.engine()).answer(trained.asked) == 2 * 24
    assert told(store, trained) is None
