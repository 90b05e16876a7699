"""Models answer: one warm engine of a base, and the store that its answers go to."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from raycib.config import LmEvalSpec, ModelSpec, RowsSpec
from raycib.data.chat_format import chat_format
from raycib.evals.alone import Pick, ask_alone
from raycib.evals.answers import Answers, generate_answers
from raycib.evals.generate import Engine, Generator
from raycib.model_files import verified
from raycib.models import load_model, load_tokenizer
from raycib.models.device import device_of
from raycib.store import Store
from raycib.store.kinds import GENERATIONS, POINTS, STAGES


def with_transformers(
    model: ModelSpec,
    device: torch.device,
    max_model_len: int,
    targets: Sequence[tuple[str, ...]] = (),
) -> tuple[Any, Engine]:
    """A tokenizer, and the base in this process; `targets` are the sets of modules that adapters
    have."""
    from raycib.evals.in_process import InProcessGenerator  # loads PEFT, which vLLM needs not

    tokenizer = load_tokenizer(model.source, model.template)
    engine = InProcessGenerator(
        load_model(model, device),
        tokenizer,
        max_model_len=max_model_len,
        targets=targets,
        stop=[chat_format(tokenizer).end],
    )
    return tokenizer, engine


def with_its_engine(
    model: ModelSpec,
    rank: int,
    max_model_len: int,
    gpus: float,
    batch_invariant: bool,
    targets: Sequence[tuple[str, ...]],
) -> tuple[Any, Engine]:
    """A tokenizer, and what answers of a base: vLLM, or for one in 4 bits transformers. `rank` is
    the largest that any adapter has, `gpus` what the process has of them."""
    if model.quantization is not None:
        return with_transformers(model, device_of(gpus), max_model_len, targets)
    tokenizer = load_tokenizer(model.source, model.template)
    engine = Generator(
        verified(model),
        max_lora_rank=rank,
        max_model_len=max_model_len,
        dtype=model.dtype,
        gpus=gpus,
        stop=[chat_format(tokenizer).end],
        batch_invariant=batch_invariant,
    )
    return tokenizer, engine


class Answering:
    """A warm engine of one base model, and the store that its answers go to."""

    def __init__(self, store: Store, model: ModelSpec, tokenizer: Any, engine: Engine) -> None:
        self.store, self.model, self.tokenizer, self.engine = store, model, tokenizer, engine
        self._answers = Answers(store)

    def answer(
        self,
        model_ids: Sequence[str],
        asked: Sequence[RowsSpec],
        benchmarks: Sequence[LmEvalSpec] = (),
    ) -> int:
        """Have models answer, stages by key or the aligned one; how many answers were new. Those
        that another sweep has answer are waited for."""
        with self.store.claims(GENERATIONS, model_ids) as mine:
            new = self._answer([one for one in model_ids if one in mine], asked, benchmarks)
        for other in (one for one in model_ids if one not in mine):
            with self.store.claim(GENERATIONS, other):
                new += self._answer([other], asked, benchmarks)
        return new

    def ask_alone(self, picks: Sequence[Pick]) -> None:
        """Have models give some of their answers again, each alone."""
        folders = {one.model_id: self._folder(one.model_id) for one in picks}
        ask_alone(self._answers, self.engine, self.tokenizer, folders, picks)

    def _folder(self, model_id: str) -> Path | None:
        """Of a model's adapter."""
        if model_id == self.model.key:
            return None
        # Of a stage, or of a point of its training.
        record = self.store.get(STAGES, model_id) or self.store.get(POINTS, model_id)
        if record is None:
            raise RuntimeError(f"the adapter of stage {model_id[:12]} vanished from the store")
        return record.folder

    def _answer(
        self, model_ids: Sequence[str], asked: Sequence[RowsSpec], benchmarks: Sequence[LmEvalSpec]
    ) -> int:
        folders = [(model_id, self._folder(model_id)) for model_id in model_ids]
        new = generate_answers(self._answers, self.engine, self.tokenizer, folders, asked)
        for spec in (one for one in benchmarks if one.in_words):
            from raycib.evals.harness.run import ensure_scores

            tokenizer = load_tokenizer(self.model.source, self.model.template)
            for model_id, folder in folders:
                asked_by = partial(self.engine.for_lm_eval, tokenizer, folder)
                ensure_scores(self.store, spec, model_id, self.engine.name, asked_by)
        return new
