"""Models answer: one warm engine of a base, and the store that its answers go to."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from raycib.config import EvalSpec, ModelSpec
from raycib.config.evals import rows_asked
from raycib.data.chat_format import chat_format
from raycib.evals.alone import Pick, ask_alone
from raycib.evals.answers import Answers, generate_answers
from raycib.evals.engine import Engine
from raycib.evals.engine_losses import Subject, compare
from raycib.evals.generate import Generator
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
        targets={name for chosen in targets for name in chosen},
    )
    return tokenizer, engine


class Answering:
    """A warm engine of one base model, and the store that its answers go to."""

    def __init__(self, store: Store, model: ModelSpec, tokenizer: Any, engine: Engine) -> None:
        self.store, self.model, self.tokenizer, self.engine = store, model, tokenizer, engine
        self._answers = Answers(store)

    def answer(self, evals: Mapping[str, Sequence[EvalSpec]]) -> int:
        """Have models (stages by key, or the aligned one) answer what they are evaluated by; how
        many answers were new. Those that another sweep has answer are waited for."""
        with self.store.claims(GENERATIONS, evals) as mine:
            new = self._answer({one: evals[one] for one in evals if one in mine})
        for other in (one for one in evals if one not in mine):
            with self.store.claim(GENERATIONS, other):
                new += self._answer({other: evals[other]})
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

    def _answer(self, evals: Mapping[str, Sequence[EvalSpec]]) -> int:
        folders = {model_id: self._folder(model_id) for model_id in evals}
        subjects = [
            Subject(model_id, folders[model_id], one)
            for model_id, several in evals.items()
            for one in several
        ]
        compare(self._answers, self.engine, self.tokenizer, self.model, subjects)
        asked = [(model_id, folders[model_id], rows_asked(evals[model_id])) for model_id in evals]
        new = generate_answers(self._answers, self.engine, self.tokenizer, asked)
        benchmarks = {
            (spec.key, one.model_id): (spec, one)
            for one in subjects
            for spec in one.evals.benchmarks
            if spec.in_words
        }
        for spec, one in benchmarks.values():
            from raycib.evals.harness.run import ensure_scores

            tokenizer = load_tokenizer(self.model.source, self.model.template)
            asked_by = partial(self.engine.for_lm_eval, tokenizer, one.folder)
            ensure_scores(self.store, spec, one.model_id, self.engine.name, asked_by)
        return new
